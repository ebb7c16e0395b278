"""
Read arrays from a pickle without unpickling it: nothing in the file is imported or called.

The operations are those that ``pickletools`` documents. Of them, and of the functions that NumPy
1 and 2 pickle an array by, only what builds numbers, texts, lists, dicts and arrays is known here;
anything else is refused.
"""

import math
import pickletools
import re
from typing import Any

import numpy as np

from mobile_vla_ros.errors import UserError, first_line

MAX_BYTES = 1 << 26
MARK = object()
LITERAL = re.compile(r'(SHORT_)?BIN(BYTES|UNICODE|STRING)8?|BYTEARRAY8|BININT[12]?|BINFLOAT|LONG1')
PUT, GET = ('BINPUT', 'LONG_BINPUT', 'PUT'), ('BINGET', 'LONG_BINGET', 'GET')
CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}
DTYPE = re.compile('[fiu][1248]|b1')
MODULES = re.compile(r'numpy(\._?core\.(multiarray|numeric))?|_codecs|__builtin__')
FUNCTIONS = ('ndarray', 'dtype', '_reconstruct', '_frombuffer', 'scalar', 'encode', 'bytes')


class _Name(str):
    """The name of a function or class, which is never looked up."""

    __slots__ = ()


class _Made:
    """A dtype or an array, whose state may follow."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def build(self, state: tuple[Any, ...]) -> None:
        """Set the state that NumPy pickles."""
        if isinstance(self.value, np.dtype):
            if state[1] not in ('<', '>', '|', '=') or any(state[2:5]):
                raise ValueError('an array of structures')
            self.value = self.value.newbyteorder(state[1])
        else:
            _, shape, dtype, by_columns, data = state
            self.value = _array(data, dtype.value, shape, 'F' if by_columns else 'C')


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """
    Return the arrays, numbers and lists of numbers by their keys in a pickled dict.

    :raises UserError: when it is no such pickle, or contains anything else.
    """
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f'{len(data)} bytes')
        top = _run(data)
        if not isinstance(top, dict):
            raise TypeError(f'{type(top).__name__}, not a dict')
        return {
            str(name): one.value if isinstance(one, _Made) else _numbers(one)
            for name, one in top.items()
        }
    except Exception as error:  # of any kind, by what the bytes are
        raise UserError(
            'its pickle cannot be read',
            got=first_line(error),
            expected='a dict of arrays of numbers, and nothing else',
        ) from None


def _numbers(value: Any) -> np.ndarray:
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(one, (bool, int, float)) for one in items):
        raise TypeError('something else than numbers')  # nested lists could have any size
    return np.asarray(value, np.float64)


def _run(data: bytes) -> Any:
    """Return the object that the operations of a pickle build."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for operation, argument, _ in pickletools.genops(data):
        name = operation.name
        if LITERAL.fullmatch(name):
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in PUT:
            memo[int(argument)] = stack[-1]
        elif name == 'MEMOIZE':
            memo[len(memo)] = stack[-1]
        elif name in GET:
            stack.append(memo[int(argument)])
        elif name == 'MARK':
            stack.append(MARK)
        elif name == 'TUPLE':
            stack.append(tuple(_marked(stack)))
        elif name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ('APPEND', 'APPENDS'):
            items = _marked(stack) if name == 'APPENDS' else [stack.pop()]
            list.extend(stack[-1], items)
        elif name in ('SETITEM', 'SETITEMS'):
            items = _marked(stack) if name == 'SETITEMS' else [stack.pop(-2), stack.pop()]
            dict.update(stack[-1], zip(items[::2], items[1::2], strict=True))
        elif name in ('GLOBAL', 'STACK_GLOBAL'):
            if name == 'GLOBAL':
                stack += argument.split(' ', 1)
            function, module = stack.pop(), stack.pop()
            if not MODULES.fullmatch(module) or function not in FUNCTIONS:
                raise ValueError(f'{module}.{function}')
            stack.append(_Name(function))
        elif name == 'REDUCE':
            arguments, function = stack.pop(), stack.pop()
            stack.append(_made(function, arguments))
        elif name == 'BUILD':
            state, made = stack.pop(), stack[-1]
            made.build(state)
        elif name == 'STOP':
            return stack.pop()
        elif name not in ('PROTO', 'FRAME'):
            raise ValueError(f'the operation {name}')
    raise ValueError('no end')


def _marked(stack: list[Any]) -> list[Any]:
    """Remove and return what is on the stack behind the last mark."""
    place = len(stack) - 1 - stack[::-1].index(MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _made(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what one of ``FUNCTIONS`` makes of its arguments."""
    if not isinstance(function, _Name):
        raise TypeError('a call of something else')
    if function == '_reconstruct':
        return _Made()
    if function == 'dtype' and DTYPE.fullmatch(arguments[0]):
        return _Made(np.dtype(arguments[0]))
    if function == '_frombuffer':
        data, dtype, shape, order = arguments
        return _Made(_array(data, dtype.value, shape, order))
    if function == 'scalar':
        return _Made(_array(arguments[1], arguments[0].value, (), 'C'))
    if function == 'encode' and arguments[1] == 'latin1':  # bytes, in protocol 2
        return arguments[0].encode('latin1')
    if function == 'bytes' and not arguments:
        return b''
    raise ValueError(f'{function}{arguments}'[:80])


def _array(data: Any, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    stored = data.encode('latin1') if isinstance(data, str) else data  # str: of Python 2
    if not isinstance(stored, (bytes, bytearray)):
        raise TypeError(f'{type(stored).__name__}, not bytes')
    if len(stored) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f'{len(stored)} bytes for an array of {shape}')
    return np.frombuffer(stored, dtype).reshape(shape, order='F' if order == 'F' else 'C')
