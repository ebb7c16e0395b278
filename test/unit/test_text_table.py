"""Text tables: aligned columns, groups that fit the terminal, and Markdown."""

from mobile_vla_ros.text_table import cells, grouped, line, markdown, number, table

COLUMNS = {'mae': ('mae', '.2f'), 'r2': ('r²', '.1f')}
ROWS = ({'mae': 0.5, 'r2': None}, {'mae': 12.25, 'r2': -1.0})


def test_columns_are_as_wide_as_their_longest_cell():
    """Left, right, and the last alignment for further columns; no trailing blanks."""
    rows = [('name', 'n', 'm'), ('a', 10, 2), ('longer', 7, '')]
    assert table(rows).splitlines() == ['name    n   m', 'a       10  2', 'longer  7']
    assert table(rows, '<>').splitlines() == ['name     n  m', 'a       10  2', 'longer   7']
    assert table([]) == ''


def test_a_single_row_has_the_given_widths():
    """For tables that are printed row by row; a cell that is too long is not cut."""
    assert line(('a', 1, 'x'), (3, 4, 0), '<>') == 'a       1  x'
    assert line(('abcde', 1, 'x'), (3, 4, 0), '<>') == 'abcde     1  x'


def test_groups_that_do_not_fit_go_below_each_other():
    """Side by side if they fit; each tier repeats the rows' names; no line is too long."""
    groups = {'': cells(ROWS, COLUMNS), 'x, m/s': cells(ROWS, COLUMNS)}
    wide = grouped(['zero', 'mean'], groups, 80).splitlines()
    assert wide == [
        '                   x, m/s',
        '        mae    r²    mae    r²',
        'zero   0.50     –   0.50     –',
        'mean  12.25  -1.0  12.25  -1.0',
    ]
    width = len(wide[-1])
    assert len(grouped(['zero', 'mean'], groups, width).splitlines()) == 4
    narrow = grouped(['zero', 'mean'], groups, width - 1).splitlines()
    assert narrow[:4] == [text[:17].rstrip() for text in wide[1:]] + ['']
    assert narrow[4] == '      x, m/s' and narrow[5:] == narrow[:3]


def test_markdown_keeps_its_columns():
    """A bar inside a cell would begin another column."""
    assert markdown(('a', ''), [(1, 'x|y')]) == '| a |  |\n| --- | --- |\n| 1 | x/y |'


def test_a_missing_number_is_a_dash():
    """For example, a metric without data."""
    assert (number(None, '.1f'), number(0.25, '.0%')) == ('–', '25%')
