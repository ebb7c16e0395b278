"""What `mobile_vla episodes show` and `check` report of one file."""

from pathlib import Path
from typing import Any

from mobile_vla_ros.episode.judge import judge
from mobile_vla_ros.episode.quality.verdict import Health
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError


def describe(path: Path) -> dict[str, Any]:
    """
    Return everything that is known of an episode, as plain values.

    :raises UserError: when it cannot be read.
    """
    with Episode.open(path) as episode:
        size = ''
        if len(episode):
            height, width, _ = episode.frame(0).image.shape
            size = f'{width}x{height}'
        return {
            'path': str(path),
            **episode.attributes,
            'health': episode.health,
            'frames': len(episode),
            'commands': len(episode.commands),
            **({} if episode.proposals is None else {'proposals': len(episode.proposals)}),
            'image_size': size,
            'events': [vars(event) for event in episode.events],
        }


def check(path: Path) -> Health:
    """Decode every image and return the verdict anew: bad as well if broken or unfinished."""
    try:
        with Episode.open(path) as episode:
            for index in range(len(episode)):
                episode.frame(index)
            health = judge(episode)
            if not episode.complete:
                health['verdict'] = 'bad'
                health['reasons'].insert(0, 'the episode was cut short')
            return health
    except UserError as error:
        return {'verdict': 'bad', 'reasons': [str(error)]}
