"""Score what a backbone recognises in held-out images."""

import numpy as np
import torch

from make_tiny_backbone.language import Seen, Sentences
from make_tiny_backbone.network import decode, encode_images
from make_tiny_backbone.tokens import GRID

NEAR = 1.5  # cells: a centre this close counts as found


def score(model, sentences: Sentences, data: dict[str, np.ndarray]) -> dict:
    """
    Score on held-out images, in the form that a policy drives with.

    :returns: named: fraction of objects whose colour and shape are at their place in the caption;
        coloured: fraction of those whose colour is; found: fraction of objects with a unique name
        whose centre is answered within 1.5 cells of the 16 x 16 grid; box_error_patches: mean
        error of these centres, across and down, in cells; understood: fraction of all drawn
        instructions answered within 1.5 cells; objects: how many were seen.
    """
    model.eval()
    named = coloured = total = 0
    errors, others = [], []
    end = sentences.tokenizer.convert_tokens_to_ids('</s>')
    rng = np.random.default_rng(1)
    tokens = sentences.tokenizer.convert_ids_to_tokens
    for first in range(0, len(data['images']), 100):
        rows = slice(first, first + 100)
        images, names, boxes = (data[key][rows] for key in ('images', 'names', 'boxes'))
        seen = [sentences.seen(*pair) for pair in zip(names, boxes, strict=True)]
        targets = [_draw_unique(one, rng) for one in seen]
        with torch.no_grad():
            _, embeds = encode_images(model, images)
            prompt, _ = sentences.caption(names[0], boxes[0])
            captions = decode(model, sentences, embeds, [prompt] * len(images), 60, end)
            prompts = [sentences.question(f'go to the {name}', [])[0] for name, _ in targets]
            found = decode(model, sentences, embeds, prompts, 2, end)
            asked = [sentences.questions.ask(one, rng) for one in seen]
            prompts = [sentences.question(text, [])[0] for text, _ in asked]
            answers = decode(model, sentences, embeds, prompts, 2, end)
        for i, objects in enumerate(seen):
            caption = phrases(sentences.tokenizer.decode(captions[i]))
            for phrase, (name, _) in zip(caption, objects, strict=False):
                named += phrase == name
                coloured += phrase.split()[:1] == name.split()[:1]
            total += len(objects)
            if targets[i][1] is not None:
                errors.append(centre_error(tokens(found[i]), targets[i][1]))
            if asked[i][1]:
                others.append(centre_error(tokens(answers[i]), asked[i][1][0]))
            else:
                others.append((0.0 if tokens(answers[i])[0] == '</object>' else GRID,) * 2)
    errors, others = np.array(errors), np.array(others)
    return {
        'named': round(named / total, 4),
        'coloured': round(coloured / total, 4),
        'box_error_patches': [round(float(v), 3) for v in errors.mean(axis=0)],
        'found': round(float((errors.max(axis=1) < NEAR).mean()), 4),
        'understood': round(float((others.max(axis=1) < NEAR).mean()), 4),
        'objects': total,
    }


def _draw_unique(seen: Seen, rng) -> tuple:
    """Return one of the objects whose name is unique in the image, or a name and no box."""
    names = [name for name, _ in seen]
    unique = [item for item in seen if names.count(item[0]) == 1]
    return unique[int(rng.integers(len(unique)))] if unique else (names[0], None)


def phrases(text: str) -> list[str]:
    """Return the names in a caption, without their article, up to its end."""
    text = text.split('</s>')[0]
    return [
        part.split('</phrase>')[0].strip().removeprefix('a ').strip()
        for part in text.split('<phrase>')[1:]
    ]


def centre_error(tokens: list[str], box) -> tuple[float, float]:
    """Return the distance of two location tokens' centre from a box's, in cells; 16 if none."""
    try:
        first, last = (
            int(token.removeprefix('<patch_index_').removesuffix('>')) for token in tokens
        )
    except ValueError:
        return float(GRID), float(GRID)
    across = (first % GRID + last % GRID + 1) / 2 - GRID * (box[0] + box[2]) / 2
    down = (first // GRID + last // GRID + 1) / 2 - GRID * (box[1] + box[3]) / 2
    return abs(across), abs(down)
