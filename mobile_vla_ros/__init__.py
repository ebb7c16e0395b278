"""Teach a mobile base to follow an instruction by driving it: record, train, drive."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
    from mobile_vla_ros.errors import UserError
    from mobile_vla_ros.runtime.loading import PolicySettings, ReadyPolicy, load_policy
    from mobile_vla_ros.runtime.playback import Plan
    from mobile_vla_ros.runtime.policy import Policy, spec_without_network
    from mobile_vla_ros.types import ActionSpec, Frame

__version__ = '0.1.0'
__all__ = [
    'ActionSpec',
    'Episode',
    'Frame',
    'Plan',
    'Policy',
    'PolicySettings',
    'ReadyPolicy',
    'UserError',
    'find_episodes',
    'load_policy',
    'spec_without_network',
]

# The module of each public name (docs/reference.md). Names are imported at first use, so that
# importing the package loads neither torch nor h5py: the guard's process must stay light.
_MODULES = {
    'ActionSpec': 'types',
    'Episode': 'episode.storage.reader',
    'Frame': 'types',
    'Plan': 'runtime.playback',
    'Policy': 'runtime.policy',
    'PolicySettings': 'runtime.loading',
    'ReadyPolicy': 'runtime.loading',
    'UserError': 'errors',
    'find_episodes': 'episode.storage.reader',
    'load_policy': 'runtime.loading',
    'spec_without_network': 'runtime.policy',
}


def __getattr__(name: str) -> object:
    """Import a public name at first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names with the rest, whether they are imported yet or not."""
    return sorted({*globals(), *__all__})
