"""
Train `builtin:tiny`: a small Kosmos-2 that names and locates what the arena's camera sees.

It is trained from scratch on rendered scenes with Kosmos-2's own objective, next-token prediction
over grounded text, and never on driving. Captions and questions are mixed:

  <s>[image]<grounding> an image of<phrase> a red box</phrase><object>
      <patch_index_0035><patch_index_0086></object> and<phrase> …        objects from left to right
  <s>[image] go to the red box<object><patch_index_0035><patch_index_0086></object>
  <s>[image] stop to the left of the red box<object>…</object>       the place beside the box
  <s>[image] pass the red box on the left and go to the ball<object>… that place, and the ball
  <s>[image] stop<object></object>                                   refers to no object

Kosmos-2's vision tower was pretrained by CLIP. This one learns together with the text, helped by
small heads, discarded afterwards, that predict which object each part of an image shows.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Render scenes of the arena and train the small backbone that ships with the '
        'package.',
        epilog='example: .venv/bin/python scripts/make_tiny_backbone --out /tmp/tiny '
        '--images 2000 --steps 300',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=ROOT / 'mobile_vla_ros/assets/tiny_backbone',
        help='folder to write',
    )
    parser.add_argument(
        '--work',
        type=Path,
        default=Path(tempfile.gettempdir()) / 'mobile_vla_tiny_backbone',
        help='folder for rendered images and checkpoints (default: %(default)s)',
    )
    parser.add_argument('--images', type=int, default=24_000, help='images to train on')
    parser.add_argument('--held-out', type=int, default=500, help='images to score on')
    parser.add_argument('--steps', type=int, default=5000, help='optimiser steps')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--threads', type=int, default=0, help='torch threads (default: all cores)'
    )
    parser.add_argument('--checkpoint-every', type=int, default=600, help='steps')
    parser.add_argument(
        '--score',
        type=Path,
        metavar='FOLDER',
        help='train nothing: score this backbone on the held-out images',
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse(argv)
    sys.path[:0] = [str(ROOT), str(ROOT / 'scripts')]
    import torch
    from transformers import Kosmos2ForConditionalGeneration

    from make_tiny_backbone import (
        evaluation,
        export,
        language,
        network,
        pretraining,
        scenes,
        tokens,
    )

    if args.score and not (args.score / 'model.safetensors').is_file():
        print(
            f'make_tiny_backbone: error: no backbone at {args.score}; expected a folder with '
            'model.safetensors.',
            file=sys.stderr,
        )
        return 2
    args.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    held_out_path = args.work / f'held_out_{args.held_out}_{args.seed}.npz'
    held_out = scenes.render(held_out_path, args.held_out, 1_000_000, args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    sentences = language.Sentences(tokens.make_tokenizer())
    if args.score:
        model = Kosmos2ForConditionalGeneration.from_pretrained(args.score)
        print(json.dumps(evaluation.score(model, sentences, held_out)))
        return 0
    train_path = args.work / f'train_{args.images}_{args.seed}.npz'
    data = scenes.render(train_path, args.images, 0, args.seed)
    model = network.make_model(sentences.tokenizer)
    checkpoint = args.work / 'checkpoint'

    def save_checkpoint() -> None:
        export.save(model, sentences.tokenizer, checkpoint)

    pretraining.train(
        model,
        sentences,
        data,
        steps=args.steps,
        seed=args.seed,
        checkpoint_every=args.checkpoint_every,
        save_checkpoint=save_checkpoint,
    )
    scores = evaluation.score(model, sentences, held_out)
    print(json.dumps(scores))
    save_checkpoint()
    weights = (checkpoint / 'model.safetensors').read_bytes()
    minutes = (time.monotonic() - began) / 60
    readme = export.readme(model, scores, weights, minutes, args)
    export.save(model, sentences.tokenizer, args.out, readme)
    return 0


if __name__ == '__main__':
    sys.exit(main())
