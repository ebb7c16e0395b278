"""Pages and figures: complete, self-contained, with correct numbers."""

import re
from importlib import resources

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from mobile_vla_ros.report.figures import plots, replay_plot
from mobile_vla_ros.report.pages import page


def test_labels_that_would_overlap_are_joined():
    """Three nearly equal means get one label."""
    assert plots._merged({'a': 1.0, 'b': 3.0, 'c': 1.05}) == [(['a', 'c'], 1.0), (['b'], 3.0)]


PARTS = """
{% extends 'base.html' %}
{% from 'parts.html' import cards, figure, photo, table %}
{% block content %}
{{ table(['x'], [[cell]], highlighted=[0]) }}
{{ cards([('9', 'nine', 'good')]) }}
{% for drawing in drawings %}
{% call figure(drawing) %}caption{% endcall %}
{% endfor %}
{{ photo(image, 'black') }}
{% endblock %}
"""


def test_a_page_is_self_contained():
    """One file without scripts or links, and with escaped text."""
    plan = plots.Plan(
        'red box',
        [plots.Thing('box', (1, 0, 0), 2, 0, 0.2, True)],
        [('policy', [(0, 0), (1, 0)], 'success'), ('no image', [], 'timeout')],
    )
    text = page.environment.from_string(PARTS).render(
        title='A <b> title',
        subtitle='a & b',
        cell='1 < 2',
        image=np.zeros((8, 8, 3), np.uint8),
        drawings=[
            plots.loss_curve([1, 0.5], [1, 0.6], {'zero': 2.0}),
            plots.success_bars([('policy', 3, 4, (0.3, 0.95))]),
            plots.top_down([plan]),
        ],
    )
    assert '<b> title' not in text
    assert '1 &lt; 2' in text
    assert 'a &amp; b' in text
    assert text.count('<svg') == 3
    assert 'src="data:image/jpeg;base64,' in text
    for outside in ('<script', '<link', 'src="http', 'href="http', 'url(http'):
        assert outside not in text


def test_a_missing_value_of_a_template_is_an_error():
    """A page never has a gap in place of a number."""
    with pytest.raises(UndefinedError, match='subtitle'):
        page.render('base.html', title='t')


def test_static_files_do_not_end_their_element():
    """An end tag in a script or a style sheet would end its element."""
    for path in (resources.files(page.PACKAGE) / 'static').iterdir():
        assert not re.search('</(script|style)', path.read_text(), re.IGNORECASE), path


def test_the_same_numbers_give_the_same_page():
    """So that a report can be compared with an older one."""
    assert plots.loss_curve([1, 2], [2, 1], {}) == plots.loss_curve([1, 2], [2, 1], {})


def test_dollars_in_a_name_are_not_a_formula(tmp_path):
    """matplotlib would parse them as mathematics and fail."""
    title = 'go to $\\frac$'
    replay_plot.write_png(tmp_path / 'plot.png', title, [0, 1], {'x': ('m/s', [0, 1], [1, 0])})
    assert Image.open(tmp_path / 'plot.png').width > 0
    assert '<svg' in plots.top_down([plots.Plan(title, [], [])])
