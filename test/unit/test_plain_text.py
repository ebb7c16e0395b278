"""Text of strangers does nothing but show."""

import io

import pytest

from mobile_vla_ros.cli import main
from mobile_vla_ros.plain_text import PlainStream, cell, plain


def test_control_characters_are_shown_as_question_marks():
    """Escapes, bells and line starts; letters of any language stay."""
    assert plain('größer \x1b[2J 前进\a\r\n') == 'größer ?[2J 前进???'
    stream = io.StringIO()
    print('a\x1b]0;title\x07\tb\rc', file=PlainStream(stream, '\n\t'))
    assert stream.getvalue() == 'a?]0;title?\tb?c\n'


@pytest.mark.parametrize('text', ['=1+1', '+1+1', '-1+A1', '@SUM(1)', '\t=1'])
def test_a_spreadsheet_computes_no_text(text):
    """Numbers are numbers, and text that begins like a formula is text."""
    assert cell(text) == f"'{text}"
    for value in ('go', -1.5, '-1.5', '-1.5e-07', 'nan'):
        assert cell(value) == value


def test_a_command_prints_no_escape_sequence(capsys):
    """Also in an error: here the name of a file that does not exist."""
    assert main.main(['episodes', 'show', 'no\x1b[31m.h5']) == 2
    shown = capsys.readouterr()
    assert '\x1b' not in shown.out + shown.err
    assert 'no?[31m.h5' in shown.err
