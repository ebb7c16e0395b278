"""`mobile_vla bench` with arguments that make no sense."""

import pytest

from command_line import mobile_vla


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['record', 'laod'], ["'laod'", "mean 'load'"]),
        (['record', 'load', '--seconds', 0], ['nothing to measure']),
        (['record', '--out', '{full}'], ['not empty']),
        (['train', 'encods'], ["'encods'", "mean 'encodes'"]),
        (['train', '--takes', 0], ['nothing to measure']),
        (['train', '--batches', 0], ['nothing to measure']),
        (['train', '--out', '{full}'], ['not empty']),
    ],
)
def test_bad_use_ends_with_a_sentence(arguments, words, tmp_path):
    """It is refused before anything is started."""
    (tmp_path / 'something').touch()
    done = mobile_vla('bench', *[str(one).format(full=tmp_path) for one in arguments])
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert 'Traceback' not in done.stderr
