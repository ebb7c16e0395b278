"""Arrays are read from pickles, and nothing in a pickle is imported or called."""

import os
import pickle
import struct

import numpy as np
import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.plain_pickle import read_arrays

ARRAYS = {
    'position': np.arange(12, dtype=np.float64).reshape(6, 2) / 7,
    'by columns': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'big': np.arange(3, dtype='>f4'),
    'flags': np.array([True, False]),
    'empty': np.zeros((0, 2), np.int16),
    'scalar': np.float64(0.25),
}


@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_are_read(protocol):
    """With their types and shapes; lists of numbers too, and one array under two keys."""
    data = pickle.dumps({**ARRAYS, 'again': ARRAYS['big'], 'list': [1, 2.5]}, protocol=protocol)
    found = read_arrays(data)
    assert found.keys() == {*ARRAYS, 'again', 'list'}
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array) and found[name].dtype == np.asarray(array).dtype
    assert np.array_equal(found['again'], ARRAYS['big'])
    assert found['list'].tolist() == [1, 2.5]


@pytest.mark.parametrize('module', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_arrays_of_both_numpys_are_read(module):
    """The module of the function has moved; Python 2 kept bytes as texts."""
    shape, dtype = (
        b'K\x02\x85',
        b'cnumpy\ndtype\n(U\x02f8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ',
    )
    data = struct.pack('<2d', 1.5, -2.5)
    made = b'c' + module.encode() + b'\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR'
    state = b'(K\x01' + shape + dtype + b'\xff\xff\xff\xffK\x00tb\x89U' + bytes([len(data)]) + data
    found = read_arrays(b'\x80\x02}U\x03yaw' + made + state + b'tbs.')
    assert found['yaw'].tolist() == [1.5, -2.5]


def test_a_number_is_not_the_bytes_of_an_array():
    """It would allocate as many zeros."""
    dtype = b'cnumpy\ndtype\n(U\x02f8tR'
    made = b'cnumpy.core.numeric\n_frombuffer\n(K\x08' + dtype + b'K\x01\x85U\x01CtR'
    with pytest.raises(UserError, match='got int, not bytes'):
        read_arrays(b'\x80\x02}U\x03yaw' + made + b's.')


class Call:
    """An object whose pickle calls something."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'top',
    [
        {'yaw': Call(os.system, 'touch made')},
        {'yaw': Call(eval, '1')},
        {'yaw': Call(np.load, 'x')},
        {'yaw': Call(np.dtype, 'O')},
        {'yaw': np.array([Call(print, 'x')], dtype=object)},
        {'yaw': np.zeros(2, [('a', 'f8')])},
        {'yaw': ARRAYS},
        {'yaw': 'words'},
        {'yaw': [[1, 2], [3]]},
        {'yaw': [10**400]},
        [1],
        ARRAYS['big'],
    ],
)
def test_anything_else_is_refused(tmp_path, monkeypatch, top):
    """In a sentence, without a call."""
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4, 5):
        with pytest.raises(UserError, match='its pickle cannot be read'):
            read_arrays(pickle.dumps(top, protocol=protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'no pickle',
        b'cos\nsystem\n(S"touch made"\ntR.',
        b'}.',
        pickle.dumps(ARRAYS)[:-40],
        pickle.dumps(ARRAYS).replace(b'K\x06K\x02\x86', b'K\x60K\x02\x86'),
        b'\x80\x04]\x94h\x00a.',
        b'\x80\x04' + b'(' * 10_000 + b'.',
        b'\x80\x04\x8e' + struct.pack('<Q', 1 << 60) + b'x.',
    ],
)
def test_damage_is_refused(data):
    """Whatever the bytes are; an empty dict has no arrays."""
    if data == b'}.':
        assert read_arrays(data) == {}
    else:
        with pytest.raises(UserError, match='its pickle cannot be read'):
            read_arrays(data)


def test_changed_bytes_never_raise_anything_else():
    """And never call anything: all they can name is seven functions that are not looked up."""
    rng, whole = np.random.default_rng(0), pickle.dumps(ARRAYS)
    for _ in range(2000):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            changed[place] = rng.integers(256)
        try:
            read_arrays(bytes(changed))
        except UserError as error:
            assert '\n' not in str(error)
