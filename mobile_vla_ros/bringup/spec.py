"""How a node is started, and the launch arguments that decide it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobile_vla_ros.bringup.share import PACKAGE
from mobile_vla_ros.errors import UserError, did_you_mean


@dataclass(frozen=True)
class NodeSpec:
    """
    One node to start.

    :param name: its name in the graph.
    :param executable: as in ``ros2 run PACKAGE EXECUTABLE``; in this package also the module.
    :param parameters: override all parameter files.
    :param remappings: keyed by the node's own relative topic names.
    :param params_files: parameter files; later ones override earlier ones.
    :param namespace: without the leading slash; empty for none.
    :param arguments: command line before ``--ros-args``.
    :param required: when it ends, everything else is stopped.
    :param sends_images: it publishes raw camera images and needs more shared memory (``dds``).
    :param package: the ROS package of the executable.
    """

    name: str
    executable: str
    parameters: dict = field(default_factory=dict)
    remappings: dict[str, str] = field(default_factory=dict)
    params_files: tuple[str, ...] = ()
    namespace: str = ''
    arguments: tuple[str, ...] = ()
    required: bool = False
    sends_images: bool = False
    package: str = PACKAGE

    @property
    def module(self) -> str:
        """The module for ``python -m``, of a node of this package."""
        return f'mobile_vla_ros.nodes.{self.executable}'


@dataclass(frozen=True)
class Argument:
    """
    One argument of a launch file.

    :param default: as typed; empty means that the parameter files decide.
    :param kind: str, bool, int or float.
    :param choices: the values allowed; empty for any.
    """

    name: str
    default: str
    description: str
    kind: type = str
    choices: tuple[str, ...] = ()

    def parse(self, value: object) -> Any:
        """
        Return a value of this argument's kind, None if it is empty.

        :param value: a string as typed, or a value of that kind.
        :raises UserError: for any other.
        """
        if value is None or value == '':
            return None
        text = str(value)
        if self.choices and text not in self.choices:
            raise UserError(
                f'argument {self.name!r} is invalid',
                got=repr(text),
                expected=' or '.join(self.choices),
                remedy=did_you_mean(text, self.choices),
            )
        if self.kind is bool:
            if text.lower() not in ('true', 'false'):
                raise UserError(
                    f'argument {self.name!r} is invalid', got=repr(text), expected='true or false'
                )
            return text.lower() == 'true'
        try:
            return self.kind(text)
        except ValueError:
            raise UserError(
                f'argument {self.name!r} is invalid',
                got=repr(text),
                expected=f'a number ({self.kind.__name__})',
            ) from None


@dataclass(frozen=True)
class Bringup:
    """
    A set of nodes and the arguments that shape it.

    :param build: returns the nodes for the parsed values of all arguments.
    """

    name: str
    description: str
    arguments: tuple[Argument, ...]
    build: Callable[[Mapping], list[NodeSpec]]

    def nodes(self, **values: object) -> list[NodeSpec]:
        """
        Return the nodes to start; omitted arguments have their defaults.

        :raises UserError: for an unknown argument or an invalid value.
        """
        known = {argument.name: argument for argument in self.arguments}
        for name in values:
            if name not in known:
                raise UserError(
                    f'{self.name} has no such argument',
                    got=repr(name),
                    expected=', '.join(known),
                    remedy=did_you_mean(name, known),
                )
        parsed = {
            name: argument.parse(values.get(name, argument.default))
            for name, argument in known.items()
        }
        check_common(parsed)
        return self.build(parsed)


def check_common(values: Mapping) -> None:
    """Reject a missing parameter file and names that ROS forbids."""
    path = values.get('params_file')
    if path is not None and not Path(path).is_file():
        raise UserError(
            'the parameter file does not exist',
            got=repr(path),
            expected='a YAML file with the key /**',
            remedy='copy one of config/*.yaml and change it',
        )
    names = {
        key: values[key]
        for key in ('namespace', 'image_topic', 'cmd_vel_topic')
        if values.get(key)
    }
    for key, name in names.items():
        if not re.fullmatch(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', name, re.ASCII):
            raise UserError(
                f'argument {key!r} is not a valid ROS name',
                got=repr(name),
                expected='letters, digits and _, with / between words',
            )
