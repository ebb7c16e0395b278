"""Message types by name, and their definitions as text."""

import importlib
import re
from collections.abc import Iterator

SEPARATOR = '=' * 80
# As the classes of messages name them, and as a definition does.
BASIC = {'boolean': 'bool', 'octet': 'byte', 'float': 'float32', 'double': 'float64'}
SEQUENCE = re.compile(r'sequence<(.+?)(?:, (\d+))?>')
ARRAY = re.compile(r'(.+)\[(\d+)\]')
BOUNDED = re.compile(r'(w?string)<(\d+)>')


def message_class(name: str) -> type:
    """
    Return the class of a type such as ``nav_msgs/msg/Odometry``, ready to subscribe with.

    :raises ImportError, AttributeError, ValueError: when it is not installed here.
    """
    package, folder, short = name.split('/')
    kind: type = getattr(importlib.import_module(f'{package}.{folder}'), short)
    type(kind).__import_type_support__()  # type: ignore[attr-defined]
    return kind


def definition(kind: type) -> str:
    """
    Return the definition of a class and of all types in it, as a bag has them (``ros2msg``).

    It is made from the fields of the class, which every ROS has: comments and constants are not
    in it. The layout of the bytes is.

    :raises ImportError, AttributeError, ValueError: when a type in it is not installed here.
    """
    texts, known, waiting = ['\n'.join(_lines(kind))], {''}, [*_types_in(kind)]
    while waiting:
        name = waiting.pop(0)
        if name in known:
            continue
        known.add(name)
        package, short = name.split('/')
        inner = message_class(f'{package}/msg/{short}')
        texts.append('\n'.join([f'MSG: {name}', *_lines(inner)]))
        waiting += _types_in(inner)
    return f'\n{SEPARATOR}\n'.join(texts) + '\n'


def _fields(kind: type) -> dict[str, str]:
    fields: dict[str, str] = kind.get_fields_and_field_types()  # type: ignore[attr-defined]
    return fields


def _lines(kind: type) -> Iterator[str]:
    return (f'{_text(text)} {name}' for name, text in _fields(kind).items())


def _types_in(kind: type) -> Iterator[str]:
    """Yield the names of the messages among the fields of a class, such as ``std_msgs/Header``."""
    for text in _fields(kind).values():
        for pattern in (SEQUENCE, ARRAY):
            found = pattern.fullmatch(text)
            text = found[1] if found else text
        if '/' in text:
            yield text


def _text(text: str) -> str:
    """Return the type of a field as a definition has it."""
    if found := SEQUENCE.fullmatch(text):
        return f'{_text(found[1])}[{f"<={found[2]}" if found[2] else ""}]'
    if found := ARRAY.fullmatch(text):
        return f'{_text(found[1])}[{found[2]}]'
    if found := BOUNDED.fullmatch(text):
        return f'{found[1]}<={found[2]}'
    return BASIC.get(text, text)
