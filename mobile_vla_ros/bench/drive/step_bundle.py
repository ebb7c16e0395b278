"""A randomly initialised full-size policy for cost measurements."""

from dataclasses import replace
from pathlib import Path

WORDS = ('go', 'to', 'the', 'left', 'right')
RECIPE = 'train_seed.yaml'
SPREAD = 0.01  # standard deviation of the adapters: merging them must change the weights


def write_policy(folder: Path, config=None) -> dict:
    """
    Write `backbone`, random bfloat16 weights, and `policy`, a bundle on it, into a folder.

    `policy_int8` is the same bundle, with a claim that lets it be loaded in int8.

    Adapters and head follow the reference run's recipe.

    :param config: a `Kosmos2Config` of a smaller backbone; None: the real one.
    :returns: the path of the bundle.
    """
    import torch
    import yaml

    from mobile_vla_ros.bench.random_weights import write_random
    from mobile_vla_ros.bringup.share import config_file
    from mobile_vla_ros.model.backbone import LoraSettings, load_backbone
    from mobile_vla_ros.model.bundle import copy_bundle, save_bundle
    from mobile_vla_ros.model.network import build_network
    from mobile_vla_ros.model.policy_spec import PolicySpec, read_spec
    from mobile_vla_ros.types import ActionSpec

    recipe = yaml.safe_load(config_file(RECIPE).read_text())
    write_random(folder / 'backbone', list(WORDS), config=config)
    torch.manual_seed(0)
    backbone = load_backbone(str(folder / 'backbone'), offline=True, dtype=torch.bfloat16)
    network = build_network(
        backbone,
        LoraSettings(
            recipe['lora_r'], recipe['lora_alpha'], recipe['lora_dropout'], recipe['lora_scope']
        ),
        motion_dims=recipe['motion_dims'],
        chunk=recipe['chunk'],
        hidden=recipe['head_hidden'],
        layers=recipe['head_layers'],
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if 'lora_B' in name:
                parameter.normal_(0.0, SPREAD)
    spec = PolicySpec(
        backbone.ref,
        network.head.settings,
        backbone.image,
        ActionSpec(),
        recipe['rate_hz'],
        recipe['window'],
        recipe['chunk'],
    )
    policy = save_bundle(folder / 'policy', network, spec)
    # Without weights that were trained there is nothing to prove.
    claim = {'golden': 'none', 'suite': 'none', 'trials': 0, 'worse': 0, 'better': 0}
    copy_bundle(policy, folder / 'policy_int8', replace(read_spec(policy), int8=claim))
    return {'policy': str(policy)}
