"""builtin:tiny: a transformers folder with a trained backbone, and the script that makes it."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from make_tiny_backbone.__main__ import main
from make_tiny_backbone.evaluation import centre_error, phrases, score
from make_tiny_backbone.language import LATENTS, Sentences
from make_tiny_backbone.network import batch_packs, pixels
from make_tiny_backbone.pretraining import objects_by_part, sentence_loss
from make_tiny_backbone.scenes import CELLS, SIZE, augment, random_pose, render, visible_objects
from make_tiny_backbone.tokens import location
from mobile_vla_ros.sim import suites, wording
from mobile_vla_ros.sim.layouts import draw_scene
from mobile_vla_ros.sim.scene import PAIRS, SceneObject

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / 'mobile_vla_ros' / 'assets' / 'tiny_backbone'
SCRIPT = ROOT / 'scripts' / 'make_tiny_backbone'


@pytest.fixture(scope='module')
def backbone():
    """The shipped weights with the language-model head, and its `Sentences`."""
    from transformers import AutoTokenizer, Kosmos2ForConditionalGeneration

    torch.set_num_threads(1)
    return (
        Kosmos2ForConditionalGeneration.from_pretrained(FOLDER).eval(),
        Sentences(AutoTokenizer.from_pretrained(FOLDER)),
    )


@pytest.fixture(scope='module')
def scene_images(tmp_path_factory):
    """Images of scenes that neither training nor the README's score has used."""
    return render(tmp_path_factory.mktemp('scene_images') / 'fresh.npz', 60, 2_000_000, 7)


# --- the shipped folder -----------------------------------------------------------------------


def test_the_folder_is_small_and_matches_its_readme():
    """At most 8 MB, only safetensors, with the hash in its README."""
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8e6
    assert not [file for file in FOLDER.iterdir() if file.suffix in ('.bin', '.pt', '.pkl')]
    given = re.search(r'sha256: `([0-9a-f]{64})`', (FOLDER / 'README.md').read_text())[1]
    assert given == hashlib.sha256((FOLDER / 'model.safetensors').read_bytes()).hexdigest()


def test_it_loads_like_the_full_model(backbone):
    """Kosmos2Model.from_pretrained finds every weight: both classes give the same image tokens."""
    from transformers import Kosmos2Model

    model, info = Kosmos2Model.from_pretrained(FOLDER, output_loading_info=True)
    assert not info['missing_keys']
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        tokens = model.eval().get_image_features(image).pooler_output
        whole, _ = backbone
        vision = whole.vision_model.model
        states = vision.post_layernorm(vision(image).last_hidden_state)
        same = whole.image_to_text_projection(torch.nn.functional.normalize(states, dim=-1))[0]
    assert tokens.shape == (1, model.config.latent_query_num, 128)
    torch.testing.assert_close(tokens, same)
    torch.testing.assert_close(
        model.get_input_embeddings().weight, whole.get_input_embeddings().weight
    )


def test_its_tokenizer_has_kosmos_ids_and_knows_the_instructions():
    """Special ids are Kosmos-2's; no instruction of a suite has an unknown word."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert [
        tokenizer.bos_token_id,
        tokenizer.pad_token_id,
        tokenizer.eos_token_id,
        tokenizer.unk_token_id,
    ] == [0, 1, 2, 3]
    for name in suites.SUITES:
        for index in range(60):
            sentence = suites.scene(name, index).instruction
            assert tokenizer.unk_token_id not in tokenizer(sentence)['input_ids'], sentence
    for sentence in (
        'Stop to the left of the blue cone.',
        'pass the obstacle on the right, please',
        'go to the one on the left',
    ):
        assert tokenizer.unk_token_id not in tokenizer(sentence)['input_ids'], sentence
    assert tokenizer('fnord', add_special_tokens=False)['input_ids'] == [3]


def test_its_image_settings_are_those_of_clip_at_its_own_size():
    """A standard image processor reads them: size, mean and deviation, no crop."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(FOLDER)
    image = np.full((224, 224, 3), 128, np.uint8)
    out = processor(image, return_tensors='pt')['pixel_values']
    side = SIZE
    assert out.shape == (1, 3, side, side)
    torch.testing.assert_close(
        out, pixels(np.full((1, side, side, 3), 128, np.uint8)), atol=1e-5, rtol=0
    )


def test_it_finds_and_names_objects_in_new_images(backbone, scene_images):
    """Driving needs this: the named object is found, and the colour at a place is known."""
    result = score(*backbone, scene_images)
    assert result['found'] >= 0.9, result
    assert result['coloured'] >= 0.9, result
    assert result['named'] >= 0.7, result
    assert result['understood'] >= 0.8, result


def test_it_guesses_in_blank_images(backbone, scene_images):
    """The score depends on the image: for grey ones it falls to chance."""
    blank = {**scene_images, 'images': np.full_like(scene_images['images'], 128)}
    result = score(*backbone, blank)
    assert result['found'] < 0.4
    assert result['coloured'] < 0.3
    assert result['named'] < 0.15
    assert result['understood'] < 0.4


# --- the script -------------------------------------------------------------------------------


def test_help_needs_no_torch():
    """--help prints an example, before anything heavy is imported."""
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', str(SCRIPT), '--help'],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    assert 'example:' in done.stdout
    assert 'torch' not in done.stderr


def test_location_tokens_are_the_corner_cells():
    """As in Kosmos-2: the cell of the upper left corner, then of the lower right one."""
    assert location([0, 0, 1, 1]) == ('<object><patch_index_0000><patch_index_0255></object>')
    # Columns 2 to 3 and rows 4 to 5 of 16.
    assert location([2 / 16, 4 / 16, 4 / 16, 6 / 16]) == (
        '<object><patch_index_0066><patch_index_0083></object>'
    )
    assert centre_error(
        ['<patch_index_0066>', '<patch_index_0083>'], [2 / 16, 4 / 16, 4 / 16, 6 / 16]
    ) == (0, 0)


BOXES = np.array([[0, 0, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6], *[[0] * 4] * 3])
NAMES = np.array([PAIRS.index(('red', 'box')), PAIRS.index(('blue', 'ball')), -1, -1, -1])


def test_a_caption_runs_from_left_to_right(backbone):
    """The prompt ends before the first phrase, where the loss starts."""
    _, sentences = backbone
    given, answer = sentences.caption(NAMES, BOXES)
    words = sentences.tokenizer.convert_ids_to_tokens
    assert words(given) == ['<grounding>', 'an', 'image', 'of']
    assert phrases(' '.join(words(answer))) == ['red box', 'blue ball']
    assert words(answer)[0] == '<phrase>'
    assert words(answer)[-1] == '</s>'


def test_a_question_ends_at_the_position_of_the_action_token(backbone):
    """The question ends with <object>; the answer has the corners of each box, or is empty."""
    _, sentences = backbone
    given, answer = sentences.question('go to the red box', [[0, 0, 0.5, 0.5]])
    words = sentences.tokenizer.convert_ids_to_tokens
    assert words(given) == ['go', 'to', 'the', 'red', 'box', '<object>']
    assert words(answer) == ['<patch_index_0000>', '<patch_index_0119>', '</object>']
    assert words(sentences.question('stop', [])[1]) == ['</object>']
    assert (
        words(sentences.question('pass', BOXES[:2])[1]).count('</delimiter_of_multi_objects/>')
        == 1
    )


def test_the_driving_form_has_its_image_after_the_start_token(backbone):
    """[BOS][image tokens] instruction, the input of a policy."""
    _, sentences = backbone
    (driving, image_at), (marked, marked_at) = sentences.prefixes
    assert (len(driving), image_at) == (1 + LATENTS, 1)
    words = sentences.tokenizer.convert_ids_to_tokens(marked)
    assert words[marked_at - 1] == '<image>'
    assert words[marked_at + LATENTS] == '</image>'


def test_sentences_packed_behind_one_image_are_independent(backbone):
    """The loss of a pack equals that of its sentences one by one with the library's forward."""
    model, sentences = backbone
    torch.manual_seed(0)
    embeds = torch.randn(1, LATENTS, 128)
    pack = [
        sentences.caption(NAMES, BOXES),
        sentences.question('go to the red box', BOXES[:1]),
        sentences.question('stop', []),
    ]
    start, image_at = sentences.prefixes[0]
    with torch.no_grad():
        together = sentence_loss(model, embeds, batch_packs([pack], (start, image_at)))
        total = count = 0
        for given, answer in pack:
            ids = torch.tensor([[*start, *given, *answer]])
            labels = torch.full_like(ids, -100)
            labels[0, -len(answer) :] = ids[0, -len(answer) :]
            mask = torch.zeros(ids.shape, dtype=torch.bool)
            mask[:, image_at : image_at + LATENTS] = True
            alone = model(
                input_ids=ids,
                image_embeds=embeds,
                image_embeds_position_mask=mask,
                labels=labels,
                use_cache=False,
            ).loss
            total, count = total + alone * len(answer), count + len(answer)
    torch.testing.assert_close(together, total / count, rtol=1e-4, atol=1e-4)


def test_questions_agree_with_the_suites(backbone):
    """Left is left in the image, twins are distinguished, missing objects are not found."""
    _, sentences = backbone
    rng = np.random.default_rng(0)
    left, right = np.array([0.2, 0.4, 0.3, 0.5]), np.array([0.6, 0.4, 0.7, 0.5])
    alike = [('red box', left), ('red box', right)]
    kinds = set()
    for _ in range(300):
        sentence, boxes = sentences.questions.ask(alike, rng)
        if not boxes:
            kinds.add('none')
            assert 'red box' not in sentence
        elif sentence.startswith(
            ('stop', 'halt', 'wait', 'stay', 'stand', 'drive up and wait', 'go and stay', 'park')
        ):
            kinds.add('beside')
            assert (boxes[0][0] < left[0]) if 'left' in sentence else (boxes[0][2] > right[2])
        else:
            kinds.add('of two')
            assert (boxes[0] == (left if 'left' in sentence else right)).all()
    assert kinds == {'none', 'beside', 'of two'}


def test_unseen_wordings_are_not_in_the_training_text(backbone):
    """The sentences of `unseen_wording` are new to the backbone too."""
    _, sentences = backbone
    rng = np.random.default_rng(1)
    seen = sentences.seen(NAMES, BOXES)
    names = {'thing': 'red box', 'side': 'left'}
    new = {
        template.format(**{'things': '', 'obstacle': '', **names})
        for kind in ('go_to', 'beside', 'stop')
        for template in wording.UNSEEN_WORDINGS[kind]
    }
    questions = {sentences.questions.ask(seen, rng)[0] for _ in range(3000)}
    assert not questions & new
    assert any(sentence.startswith('find the red box') for sentence in questions)


def test_a_part_of_an_image_has_the_object_of_most_of_its_cells():
    """An object counts from a quarter of the part's cells on."""
    cells = np.full((1, CELLS, CELLS), -1)
    cells[0, :2, :2] = 1
    cells[0, 0, 4] = 0
    parts = objects_by_part(cells, 12)
    assert parts[0, 0, 0] == 1
    assert parts[0, 0, 2] == 0
    assert (parts >= 0).sum() == 2
    assert (objects_by_part(cells, 6)[0, 0, :2] == [1, -1]).all()


def test_in_a_mirrored_image_names_boxes_and_cells_stay_with_their_objects(scene_images):
    """The order is reversed, and each box still contains its object."""

    class Always:
        def uniform(self, *bounds, size=None):
            return np.ones(bounds[2]) if bounds else np.zeros(size)

    images, names, boxes, cells = augment(scene_images, np.arange(20), Always())
    for i in range(20):
        count = (names[i] >= 0).sum()
        centres = boxes[i, :count, 0] + boxes[i, :count, 2]
        assert (np.diff(centres) >= 0).all()
        assert (images[i] == scene_images['images'][i, :, ::-1]).all()
        for k in range(count):
            old = count - 1 - k
            assert names[i, k] == scene_images['names'][i, old]
            left, top, right, bottom = scene_images['boxes'][i, old]
            assert boxes[i, k] == pytest.approx([1 - right, top, 1 - left, bottom])
            assert ((cells[i] == k) == (scene_images['cells'][i] == old)[:, ::-1]).all()


def test_slivers_are_not_named():
    """An object with less than 40 pixels in a 168 px image is left out of a caption."""
    side = SIZE
    ids = np.full((side, side), -1)
    ids[50:60, 10:20] = 1
    ids[50:59, 0:4] = 0
    seen = visible_objects(ids)
    assert seen == [(1, pytest.approx([10 / side, 50 / side, 20 / side, 60 / side]))]


def test_training_images_have_near_and_far_objects(scene_images):
    """As in driving: small objects and ones that fill the image."""
    widths = [
        box[2] - box[0]
        for boxes, names in zip(scene_images['boxes'], scene_images['names'], strict=True)
        for box, name in zip(boxes, names, strict=True)
        if name >= 0
    ]
    assert min(widths) < 0.12
    assert max(widths) > 0.5


def test_a_run_is_reproducible_and_writes_a_whole_folder(tmp_path):
    """The same seed gives the same bytes; the folder loads, and no other file is left."""
    from transformers import AutoTokenizer, Kosmos2Model

    weights = []
    for run in ('a', 'b'):
        assert (
            main(
                [
                    '--out',
                    str(tmp_path / run),
                    '--work',
                    str(tmp_path / 'work'),
                    '--images',
                    '24',
                    '--held-out',
                    '4',
                    '--steps',
                    '3',
                    '--threads',
                    '1',
                ]
            )
            == 0
        )
        weights.append((tmp_path / run / 'model.safetensors').read_bytes())
    assert weights[0] == weights[1]
    Kosmos2Model.from_pretrained(tmp_path / 'a')
    AutoTokenizer.from_pretrained(tmp_path / 'a')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'b', 'work']


def test_a_backbone_can_be_scored_without_training_one(tmp_path, capsys):
    """`--score` renders only the held-out images; a missing backbone is refused."""
    work = ('--work', str(tmp_path), '--held-out', '30', '--threads', '1')
    assert main(['--score', str(FOLDER), *work]) == 0
    assert json.loads(capsys.readouterr().out)['found'] > 0.85
    assert [path.name for path in tmp_path.iterdir()] == ['held_out_30_0.npz']
    assert main(['--score', str(tmp_path), *work]) == 2
    assert 'no backbone at' in capsys.readouterr().err


def test_random_poses_face_an_object():
    """random_pose() puts the base in front of an object and roughly in line with it."""
    scene = draw_scene(3, 'go_to')
    rng = np.random.default_rng(0)
    for _ in range(100):
        x, y, yaw = random_pose(scene, rng)
        assert any(_ahead(thing, x, y, yaw) for thing in scene.objects)


def _ahead(thing: SceneObject, x, y, yaw) -> bool:
    dx, dy = thing.x - x, thing.y - y
    ahead, aside = np.cos(yaw) * dx + np.sin(yaw) * dy, -np.sin(yaw) * dx + np.cos(yaw) * dy
    return 0.4 < ahead < 3.6 and abs(aside) < ahead * 1.5 + 0.8
