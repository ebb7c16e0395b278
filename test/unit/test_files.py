"""A file is replaced in one step, or not at all."""

import pytest

from mobile_vla_ros.files import replaced


@pytest.mark.parametrize(('mode', 'old', 'new'), [('w', 'old', 'größer'), ('wb', b'1', b'22')])
def test_a_file_is_replaced_whole(tmp_path, mode, old, new):
    """The old content stays until the end; the new file is readable by everybody."""
    path = tmp_path / 'page.html'
    for content in (old, new):
        before = path.read_bytes() if path.exists() else None
        with replaced(path, mode) as file:
            file.write(content)
            assert (path.read_bytes() if path.exists() else None) == before
    assert path.read_bytes() == (new if mode == 'wb' else new.encode())
    assert path.stat().st_mode & 0o777 == 0o644 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    """Also after Ctrl-C: neither a partial file nor a hidden one."""
    path = tmp_path / 'history.json'
    path.write_text('old')
    with pytest.raises(error), replaced(path) as file:
        file.write('half')
        raise error
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]
