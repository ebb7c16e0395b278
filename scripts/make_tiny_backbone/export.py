"""Write the finished backbone as a transformers folder, with a README of its scores."""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch

from make_tiny_backbone.language import LATENTS
from make_tiny_backbone.network import CLIP_MEAN, CLIP_STD
from make_tiny_backbone.scenes import SIZE

IMAGE_SETTINGS = {
    'image_processor_type': 'CLIPImageProcessor',
    'do_convert_rgb': True,
    'do_resize': True,
    'size': {'height': SIZE, 'width': SIZE},
    'resample': 3,
    'do_center_crop': False,
    'do_rescale': True,
    'rescale_factor': 1 / 255,
    'do_normalize': True,
    'image_mean': CLIP_MEAN,
    'image_std': CLIP_STD,
}
README = """# builtin:tiny

A Kosmos-2 of {parameters:.2f} M parameters (vision 4 layers, text 3 layers, 128 wide, {latents}
image tokens, {size} px) that names and locates the objects of the arena and the places beside
them. It has seen no driving.

Made in {minutes:.0f} minutes ({threads} threads) by
`.venv/bin/python scripts/make_tiny_backbone --images {images} --steps {steps} --seed {seed}`.

| held-out images ({held_out}) | |
| --- | --- |
| objects named right (colour and shape, in their place from left to right) | {named:.1%} |
| colour right, in its place | {coloured:.1%} |
| object asked for found within 1.5 of 16 cells | {found:.1%} |
| mean error of its centre, across and down, in cells | {across:.2f}, {down:.2f} |
| any question answered so (also one of two alike, beside, past, stop) | {understood:.1%} |

`model.safetensors` sha256: `{sha256}`
"""


def save(model, tokenizer, folder: Path, readme: str | None = None) -> None:
    """Write an ordinary transformers folder, whole or not at all."""
    part = folder.with_name(folder.name + '.part')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save_pretrained(part)
    (part / 'generation_config.json').unlink(missing_ok=True)
    tokenizer.save_pretrained(part)
    (part / 'preprocessor_config.json').write_text(json.dumps(IMAGE_SETTINGS, indent=2) + '\n')
    if readme is not None:
        (part / 'README.md').write_text(readme)
    old = folder.with_name(folder.name + '.old')
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def readme(model, scores: dict, weights: bytes, minutes: float, args: argparse.Namespace) -> str:
    """Return the README of a finished backbone: how it was made, its scores and its hash."""
    across, down = scores['box_error_patches']
    return README.format(
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        latents=LATENTS,
        size=SIZE,
        images=args.images,
        steps=args.steps,
        seed=args.seed,
        held_out=args.held_out,
        minutes=minutes,
        threads=torch.get_num_threads(),
        named=scores['named'],
        coloured=scores['coloured'],
        found=scores['found'],
        understood=scores['understood'],
        across=across,
        down=down,
        sha256=hashlib.sha256(weights).hexdigest(),
    )
