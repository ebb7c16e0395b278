"""Every page with hostile names: they stay text in every place."""

import dataclasses
import json
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import mobile_vla_ros
from browser import dump_dom, needs_chromium
from mobile_vla_ros.report.builders import demo as demo_report
from mobile_vla_ros.report.pages import page
from mobile_vla_ros.report.pages.episodes_page import EpisodeView, Served, episodes_page
from mobile_vla_ros.report.pages.list_page import Line, list_page
from mobile_vla_ros.report.pages.training_page import training_page
from mobile_vla_ros.report.pages.training_view import (
    BadWindow,
    Coverage,
    PredictedEpisode,
    TrainingView,
)
from mobile_vla_ros.report.pages.trials_page import DriveView, Film, SuiteView, Thing, trials_page
from mobile_vla_ros.rollout.demo import LIVE_SUITE, POLICY

HOSTILE = '</script></style><img src=x onerror="alert(1)"><!-- \'{{ 7 * 7 }}{% x %} & \\u003c'
QUOTED = '"><img src=x onerror=alert(1)>'


def name(place: str) -> str:
    """Return a hostile name that contains its place."""
    return f'{place} {QUOTED} {HOSTILE}'


def view_of(name) -> EpisodeView:
    return EpisodeView(
        name('name'),
        name('instruction'),
        name('outcome'),
        'bad',
        [name('reason')],
        1.0,
        1,
        times=[0.0],
        index=[0],
        images=[b'jpeg'],
        rows=[[0.0, 0.1, 0.0, 0.0, 1]],
        events=[[0.5, name('event'), name('event text')]],
        measures={name('measure'): name('value')},
        edits=name('edits'),
    )


def episodes(name) -> str:
    episode = view_of(name)
    return episodes_page(name('title'), name('subtitle'), [episode] * 2, [name('note')])


def served(name) -> str:
    beside = Served([name('an outcome')], name('every'), name('newer'), name('older'))
    episode = dataclasses.replace(view_of(name), log=[name('log')])
    return episodes_page(name('title'), name('subtitle'), [episode], (), beside)


def listed(name) -> str:
    line = Line(name('address'), name('name'), name('told'), name('outcome'), 'good', 1.0, 2)
    return list_page(name('title'), name('subtitle'), [line], [name('note')])


def trials(name) -> str:
    summary = {
        'success_rate': 0.5,
        'success_interval': (0.1, 0.9),
        'collision_rate': 0.0,
        'collision_interval': (0.0, 0.4),
        'trials': 2,
        'time_s': {'mean': 1.0, 'expert': 1.0, 'ratio': 1.0},
        'length_m': {'mean': 1.0, 'expert': 1.0, 'ratio': 1.0},
        'kinds': {
            name('kind'): {'drives': 2, 'success': 1, 'wrong': 0, 'collision': 1, 'timeout': 0}
        },
    }
    path = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0)]
    things = [Thing('box', (1, 0, 0), 2.0, 0.0, 0.2)]
    drives = [
        DriveView(name('failed'), name('told'), 'collision', 5.0, things, path, path, film)
        for film in (Film(path, [0.0, 1.0], [b'jpeg'], [0, 0]), None)
    ]
    drives.append(DriveView(name('right'), name('told'), 'success', 5.0, things, path))
    suites = [SuiteView(name(f'suite {number}'), 'about', summary, drives) for number in (1, 2)]
    return trials_page(name('title'), name('subtitle'), suites)


def training(name) -> str:
    axes = [('linear_x', 'm/s')]
    values = np.linspace(-0.5, 0.5, 5)[:, None]
    return training_page(
        TrainingView(
            title=name('title'),
            subtitle=name('subtitle'),
            lead=[name('lead')],
            verdict=[name('verdict')],
            mood='good',
            cards=[(name('number'), name('what'), '')],
            axes=axes,
            rate_hz=10.0,
            metrics={'policy': {'loss': 0.1}, name('blind'): {'loss': 0.2, 'loss_arm_act': 0.1}},
            blind=[name('blind')],
            meaning={name('row'): name('meaning')},
            change={name('changed'): {'linear_x': 0.1}},
            history=[{'epoch': 0, 'val_loss': 0.1, name('number of an epoch'): 1.0}],
            chosen=0,
            driven=values,
            predicted=values,
            chunk_errors={'MAE': {name('blind'): values}},
            drives=[
                PredictedEpisode(name('drive'), name('about'), values[:, 0], values, values, [0.1])
            ],
            worst=[
                BadWindow(
                    name('window'),
                    name('about'),
                    name('driven'),
                    name('predicted'),
                    [(np.zeros((8, 8, 3), np.uint8), name('caption'))],
                    name('problem'),
                )
            ],
            coverage=Coverage(
                [[name('instruction'), *'123456']],
                values,
                values,
                {name('left out'): name('why')},
                [[name('alike')]],
                [[name('leak')]],
                [name('broken')],
            ),
            facts={name('group'): {name('fact'): name('value')}},
        )
    )


def demo(name) -> str:
    result = {
        'success_rate': 0.5,
        'success_interval': (0.1, 0.9),
        'collision_rate': 0.0,
        'trials': 2,
        'outcomes': [{'scene': 0, 'outcome': 'success'}],
    }
    suites = (LIVE_SUITE, 'swap', name('suite'))
    trial = {'trial': 0, 'outcome': 'success', 'instruction': HOSTILE, 'path': [[0, 0, 0]]}
    with tempfile.TemporaryDirectory() as folder:
        written = demo_report.write_report(
            Path(folder) / 'report.html',
            policy=Path(mobile_vla_ros.__file__).parent / 'assets' / 'demo_policy',
            episodes=Path(folder) / 'none',
            results={who: dict.fromkeys(suites, result) for who in (POLICY, name('who'))},
            live=[trial],
            seconds={name('step'): 1.0, 'all': 2.0},
            speeds=(8.0, 2.5),
        )
        return written.read_text()


class Elements(HTMLParser):
    """
    A page as a browser parses it: its elements, their attributes, and its text.

    Attributes within drawings do not count, since matplotlib draws a name as paths of letters.
    """

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.texts, self.data = set(), [], [], []
        self.tag = self.kind = ''
        self.drawing = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tag, self.kind = tag, dict(attrs).get('type')
        self.tags.add(tag)
        self.drawing |= tag == 'svg'
        assert not any(key.startswith('on') for key, _ in attrs), 'an attribute that would run'
        if not self.drawing:
            self.attributes += attrs

    def handle_endtag(self, tag):
        self.tag = self.kind = ''
        self.drawing &= tag != 'svg'

    def handle_data(self, data):
        if self.tag == 'script' and self.kind == 'application/json':
            self.data.append(json.loads(data))
        elif self.tag not in ('script', 'style'):
            self.texts.append(data)


@pytest.mark.parametrize('build', [episodes, served, listed, trials, training, demo])
def test_a_hostile_name_is_text_in_every_place(build):
    """The same elements and attributes as with plain names, and every name is complete."""
    places = []

    def hostile(place: str) -> str:
        places.append(place)
        return name(place)

    found, plain = Elements(build(hostile)), Elements(build(str))
    assert found.tags == plain.tags
    assert [key for key, _ in found.attributes] == [key for key, _ in plain.attributes]
    read = ''.join(found.texts) + json.dumps(found.data)
    read += ''.join(value or '' for _, value in found.attributes)
    for place in places:
        assert name(place) in read or json.dumps(name(place))[1:-1] in read, place


def test_without_escaping_hostile_names_would_be_found():
    """Without escaping the test above would find the image in a name."""
    assert page.environment.autoescape is True
    page.environment.autoescape = False
    page.environment.cache.clear()
    try:
        with pytest.raises(AssertionError, match='an attribute that would run'):
            Elements(episodes(name))
    finally:
        page.environment.autoescape = True
        page.environment.cache.clear()


@needs_chromium
def test_a_script_that_slips_in_does_not_run(tmp_path):
    """The Content-Security-Policy allows the page's own script by its hash, and no other."""
    planted = tmp_path / 'planted.html'
    planted.write_text(
        episodes(str).replace('</body>', '<script>document.title = "planted"</script></body>')
    )
    dom, console = dump_dom(planted.as_uri(), tmp_path / 'profile')
    assert '<title>planted</title>' not in dom
    assert any('Content Security Policy' in line for line in console)
