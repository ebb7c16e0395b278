"""
Policies that are code: ``module:Class``, or by the name that an installed package gives one.

Nothing is imported but what a person names, and none of it is looked for beside the episodes,
bundles or the working directory: only where Python looks, as `PYTHONPATH` extends it.
"""

import inspect
import os
import re
import shlex
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mobile_vla_ros.errors import Left, UserError, first_line
from mobile_vla_ros.files import sha256
from mobile_vla_ros.model.builtin import bundle_folder, is_builtin
from mobile_vla_ros.model.manifest_check import rhythm_problems
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.runtime.policy import Policy, unknown_words
from mobile_vla_ros.types import ActionSpec, Frame, ImageSpec

GROUP = 'mobile_vla_ros.policies'  # of entry points: name to class, or to what returns a policy
# What ships, as if it were an entry point.
PROCESS = metadata.EntryPoint(
    'process', 'mobile_vla_ros.runtime.process_policy:ProcessPolicy', GROUP
)
WORD = r'[^\W\d]\w*'
CLASS = re.compile(rf'(?P<module>{WORD}(\.{WORD})*):(?P<name>{WORD})')


def is_own(name: Path | str) -> bool:
    """Whether a name is that of a policy that is code, not of a bundle; imports nothing."""
    text = str(name)
    if is_builtin(text) or os.path.exists(text):
        return False
    return CLASS.fullmatch(text) is not None or _entry_point(text) is not None


def node_name(policy: Path | str) -> str:
    """Return a policy as a node of this machine finds it: the folder of a bundle in full."""
    return str(policy) if is_own(policy) else str(bundle_folder(policy).resolve())


def _entry_point(text: str) -> metadata.EntryPoint | None:
    name = text.partition(':')[0]
    if name == PROCESS.name:
        return PROCESS
    return next(iter(metadata.entry_points(group=GROUP, name=name)), None)


def policy_source(name: Path | str) -> bytes:
    """
    Return the text of the file of a policy's class, b'' if it has none.

    Of a command, the hashes of its words that are files.

    :raises UserError: if it cannot be imported.
    """
    kind, _, command = str(name).partition(':')
    if kind == PROCESS.name:
        files = [word for word in shlex.split(command) if os.path.isfile(word)]
        return ' '.join(sha256(Path(one)) for one in files if os.access(one, os.R_OK)).encode()
    make = _factory(str(name))
    made = make.func if isinstance(make, partial) else make
    file = inspect.getsourcefile(made) if callable(made) and hasattr(made, '__module__') else None
    return Path(file).read_bytes() if file else b''


def own_policy(name: Path | str, blank: str = '') -> 'OwnPolicy':
    """
    Return a policy by ``module:Class``, or by its entry point's name or ``NAME:ARGUMENT``.

    :param blank: `image` or `instruction`: run it without.
    :raises UserError: if it cannot be imported or made, or is not a `Policy` with a valid spec.
    """
    make = _factory(str(name))
    try:
        policy = make()
    except (UserError, Left):
        raise
    except (Exception, SystemExit) as error:
        _refuse(f'the policy {name} cannot be made', error)
    if problems := _problems(policy):
        raise UserError(
            f'{name} is not a policy',
            got='; '.join(problems),
            expected='spec, infer and reset, as in docs/reference.md (Policy)',
        )
    return OwnPolicy(str(name), policy, blank)


def _factory(text: str) -> Callable[[], Any]:
    """Import what makes the policy."""
    point, named = _entry_point(text), CLASS.fullmatch(text)
    try:
        if point is not None:
            argument = text.partition(':')[2]
            return partial(point.load(), argument) if argument else point.load()
        assert named is not None, 'is_own() comes first'
        made: Callable[[], Any] = getattr(import_module(named['module']), named['name'])
        return made
    except Left:
        raise
    except (Exception, SystemExit) as error:
        _refuse(
            f'the policy {text} cannot be imported',
            error,
            'PYTHONPATH must have the folder of its module',
        )


def _refuse(what: str, error: BaseException, remedy: str | None = None) -> NoReturn:
    """Raise a UserError with the line of the policy's code that failed."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    own = Path(place.filename).resolve() != Path(__file__).resolve() and '<' not in place.filename
    at = f' ({Path(place.filename).name}, line {place.lineno})' if own else ''
    raise UserError(
        what, got=f'{type(error).__name__}: {first_line(error)}{at}', remedy=remedy
    ) from error


def _problems(policy: Any) -> list[str]:
    """Return what a policy lacks of the protocol."""
    if inspect.isclass(policy):
        return ['a class, not a policy']
    lacking = [name for name in ('infer', 'reset') if not callable(getattr(policy, name, None))]
    problems = [f'no {name}()' for name in lacking]
    spec = getattr(policy, 'spec', None)
    if not isinstance(spec, PolicySpec):
        return [*problems, f'its spec is {type(spec).__name__}, not a PolicySpec']
    problems += [f'spec.{problem}' for problem in rhythm_problems(vars(spec))]
    for name, kind in (('actions', ActionSpec), ('image', ImageSpec)):
        if not isinstance(getattr(spec, name), kind):
            problems.append(f'spec.{name} is not of {kind.__name__}')
    return problems


class OwnPolicy:
    """
    A policy that is code; its plans are checked.

    :param name: that it was asked for by.
    :param blank: `image`: every image is black; `instruction`: the instruction is empty.
    """

    def __init__(self, name: str, policy: Policy, blank: str = ''):
        self.name = name
        self.spec = replace(policy.spec, blank=blank) if blank else policy.spec
        self.encoded_frames = 0
        self._policy = policy

    def infer(self, window: Sequence[Frame], instruction: str) -> Plan:
        """
        Return the policy's plan.

        :raises UserError: for another than its spec promises; whatever the policy raises.
        """
        if self.spec.blank == 'image':
            black = np.zeros((self.spec.image.size, self.spec.image.size, 3), np.uint8)
            window = [Frame(black, one.stamp_ns, one.stamp_ns) for one in window]
        if self.spec.blank == 'instruction':
            instruction = ''
        plan = self._policy.infer(window, instruction)
        if not isinstance(plan, Plan):
            raise UserError(f'the policy {self.name} returned no Plan', got=type(plan).__name__)
        # A copy: the policy may write into its own after the check.
        twists = np.array(plan.twists, dtype=np.float64)
        wanted = ((self.spec.chunk, 6), window[-1].stamp_ns, self.spec.rate_hz)
        if (found := (twists.shape, plan.stamp_ns, plan.rate_hz)) != wanted:
            raise UserError(
                f'the policy {self.name} returned a plan that its spec does not promise',
                got='twists {}, stamp_ns {}, rate_hz {}'.format(*found),
                expected='{}, {} (of the newest frame), {}'.format(*wanted),
            )
        if np.delete(twists, self.spec.actions.columns, axis=1).any():
            raise UserError(
                f'the policy {self.name} drives an axis that its spec does not name',
                expected=', '.join(self.spec.actions.axes),
            )
        self.encoded_frames += 1
        return Plan(plan.stamp_ns, twists, plan.rate_hz)

    def reset(self) -> None:
        """Begin anew."""
        self._policy.reset()

    def unknown_words(self, instruction: str) -> list[str]:
        """Return the words that the policy says it does not know; why, if it cannot say."""
        if self.spec.blank == 'instruction':
            return []
        try:
            return [str(word) for word in unknown_words(self._policy, instruction)]
        except Exception as error:
            return [f'(its unknown_words() failed: {type(error).__name__}: {first_line(error)})']
