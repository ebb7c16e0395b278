"""The page of a policy or a set of episodes on a hub, from the figures that are there already."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import DatasetCardData, EvalResult, ModelCardData

from mobile_vla_ros import __version__, text_table
from mobile_vla_ros.model.builtin import KNOWN_HUB
from mobile_vla_ros.model.policy_spec import PolicySpec

LIBRARY = 'mobile_vla_ros'
TAGS = ['robotics', 'mobile-robot', LIBRARY]
METRIC = 'loss_arm_act'
HELD_OUT = 'held-out episodes of the training'


def model_card(spec: PolicySpec, repo: str) -> str:
    """
    Return the page of a policy: its figures on held-out episodes, beside those of blind baselines.

    The index of results has them too, so that nobody sees the policy's figure alone.

    :param repo: OWNER/NAME of the repository.
    """
    rows, name = scores(spec), repo.rpartition('/')[2]
    about = ModelCardData(
        model_name=name,
        library_name=LIBRARY,
        pipeline_tag='robotics',
        tags=TAGS,
        base_model=KNOWN_HUB if spec.backbone.id == KNOWN_HUB else None,
        eval_results=[
            EvalResult(
                task_type='robotics',
                task_name='imitation of driven commands',
                dataset_type='mobile_vla_episodes',
                dataset_name=HELD_OUT,
                metric_type=METRIC,
                metric_name=f'{METRIC}, {what}',
                metric_value=loss,
            )
            for what, loss in rows.items()
        ],
    )
    axes = ', '.join(
        f'{axis} (up to {scale:.3g} {unit})'
        for axis, scale, unit in zip(
            spec.actions.axes, spec.actions.scale, spec.actions.units, strict=True
        )
    )
    facts = (
        ('drives', axes),
        (
            'rate, window, chunk',
            f'{spec.rate_hz:g} Hz, {spec.window} frames, {spec.chunk} actions',
        ),
        ('backbone', spec.backbone.id),
        ('trained on', f'{len(spec.data.get("train_episodes", ()))} episodes'),
        ('held out', f'{len(spec.data.get("val_episodes", ()))} episodes'),
        ('made with', f'mobile_vla_ros {__version__}'),
    )
    blind = f'\n\nIt was trained without its {spec.blank}: it is a control.' if spec.blank else ''
    return _page(
        about.to_yaml(),
        name,
        f'A policy that drives a mobile base by camera and instruction.{blind}',
        text_table.markdown(('', ''), facts),
        f'## On {HELD_OUT}\n\nThe Huber loss of the actions, each divided by its scale. The '
        'baselines see no image: a policy that is no better has learned nothing from the camera.',
        text_table.markdown(('', METRIC), [(what, f'{loss:.5f}') for what, loss in rows.items()]),
        'These figures say nothing about a robot that drives. Try it behind the guard first:\n\n'
        f'```\nmobile_vla policy pull {repo} {name}\n'
        f'ros2 launch mobile_vla_ros drive.launch.py policy:={name} dry_run:=true\n```',
    )


def scores(spec: PolicySpec) -> dict[str, float]:
    """Return the loss on held-out episodes of the policy, and of what sees no image, by name."""
    own = spec.metrics.get('policy', {})
    found = {'the policy': own, 'the policy, images blanked': own.get('image_blanked', {})}
    found |= {
        f'baseline: {name.replace("_", " ")}': one
        for name, one in spec.metrics.get('baselines', {}).items()
    }
    return {what: one[METRIC] for what, one in found.items() if METRIC in one}


def data_card(found: Mapping[str, Any], repo: str) -> str:
    """
    Return the page of a set of episodes: its audit.

    :param found: of ``evaluation.audit``.
    :param repo: OWNER/NAME of the repository.
    """
    from mobile_vla_ros.evaluation import audit  # it loads torch, which a policy's page needs not

    name = repo.rpartition('/')[2]
    about = DatasetCardData(pretty_name=name, task_categories=['robotics'], tags=TAGS)
    return _page(
        about.to_yaml(),
        name,
        'Episodes of a mobile base that a person drove to an instruction: camera frames, '
        'commands, outcome. One HDF5 file each, with its edits beside it.',
        f'## What a training learns from it\n\n{audit.summary(found)}',
        text_table.markdown(('', ''), audit.table(found)),
        f'```\nmobile_vla episodes pull {repo} {name}\nmobile_vla episodes audit {name}\n```',
    )


def _page(about: str, name: str, *parts: str) -> str:
    return '\n\n'.join([f'---\n{about.strip()}\n---\n\n# {name}', *parts]) + '\n'
