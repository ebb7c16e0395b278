"""A Kosmos-2 with random weights that is small enough to train in a test."""

import json
import shutil
from pathlib import Path

WORDS = (
    *('go', 'to', 'the', 'red', 'green', 'blue', 'yellow', 'purple', 'orange'),
    *('box', 'cylinder', 'ball', 'cone'),
)


def make_small_backbone(folder: Path, seed: int = 0):
    """Write a Kosmos-2 with two layers per tower, its tokenizer and its image settings."""
    import torch
    from transformers import Kosmos2Config, Kosmos2Model

    from mobile_vla_ros.bench.random_weights import word_tokenizer

    word_tokenizer(WORDS).save_pretrained(folder)
    torch.manual_seed(seed)
    model = Kosmos2Model(
        Kosmos2Config(
            text_config={
                'vocab_size': 32,
                'embed_dim': 32,
                'layers': 2,
                'ffn_dim': 64,
                'attention_heads': 2,
                'dropout': 0.1,  # as the real one
                'attention_dropout': 0.1,
                'max_position_embeddings': 64,
            },
            vision_config={
                'hidden_size': 32,
                'intermediate_size': 64,
                'num_hidden_layers': 2,
                'num_attention_heads': 2,
                'image_size': 56,
                'patch_size': 14,
            },
            latent_query_num=4,
        )
    )
    # With the library's initialisation an untrained network hardly depends on its image.
    for module in model.image_to_text_projection.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=32**-0.5)
    model.save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(
        json.dumps(
            {
                'size': {'height': 56, 'width': 56},
                'image_mean': [0.48, 0.46, 0.41],
                'image_std': [0.27, 0.26, 0.28],
            }
        )
    )


def without_dropout(backbone: str, to: Path) -> str:
    """Copy a backbone, with a configuration that drops nothing."""
    shutil.copytree(backbone, to)
    config = json.loads((to / 'config.json').read_text())
    config['text_config'] |= {'dropout': 0.0, 'attention_dropout': 0.0}
    (to / 'config.json').write_text(json.dumps(config))
    return str(to)
