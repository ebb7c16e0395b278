"""`mobile_vla episodes view --serve`: who gets a page, and what an edit of it does."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
import pytest

from browser import needs_chromium, tab
from command_line import run_main
from mobile_vla_ros import Episode
from mobile_vla_ros.episode.catalog.edit import edit
from mobile_vla_ros.episode.storage import edits
from mobile_vla_ros.report.serve.server import MAX_BODY, EpisodeServer
from mobile_vla_ros.report.serve.site import Site, address
from small_episodes import CREATED_NS, write_episode

SECRET = 'only for readers of this file'


class Browser:
    """Asks a server as the page does, unless told otherwise."""

    def __init__(self, server: EpisodeServer) -> None:
        self.port = server.server_address[1]
        self.base = f'/{server.token}/'
        self.own = {
            'Host': f'127.0.0.1:{self.port}',
            'Origin': f'http://127.0.0.1:{self.port}',
            'Content-Type': 'application/json',
        }

    def ask(self, method: str, path: str, body=None, **headers) -> tuple[int, str, dict]:
        """Return status, text and headers; a header of None is not sent."""
        link = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        named = {name.replace('_', '-'): value for name, value in headers.items()}
        link.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        length = {} if body is None else {'Content-Length': str(len(body))}
        for name, value in {**self.own, **length, **named}.items():
            if value is not None:
                link.putheader(name, value)
        link.endheaders(body)
        answer = link.getresponse()
        found = answer.status, answer.read().decode(), dict(answer.headers)
        link.close()
        return found

    def get(self, name: str = '') -> str:
        status, text, _ = self.ask('GET', self.base + name)
        assert status == 200, text
        return text

    def edit(self, name: str, action='set', why='', **values) -> tuple[int, dict]:
        body = json.dumps({'action': action, 'values': values, 'why': why}).encode()
        status, text, _ = self.ask('POST', self.base + name, body)
        return status, json.loads(text)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return a folder that holds more than episodes."""
    folder = tmp_path_factory.mktemp('takes')
    write_episode(folder, instruction='go to the <b>door</b>')
    (folder / 'broken.h5').write_text(SECRET)
    (folder / 'notes.txt').write_text(SECRET)
    (folder / 'below').mkdir()
    write_episode(folder / 'below')
    return folder


@pytest.fixture(scope='module')
def browser(folder):
    """Return what asks a server of the folder."""
    site = Site(folder, by='anna', clock=lambda: CREATED_NS)
    server = EpisodeServer(site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Browser(server)
    server.shutdown()
    thread.join()
    server.server_close()
    site.close()


@pytest.fixture
def path(folder):
    """Return a new episode of 2 s in the folder that is served."""
    return write_episode(folder)


def log_of(path) -> list[dict]:
    """Return the entries of the list beside an episode."""
    beside = edits.path_of(path)
    return json.loads(beside.read_text())['edits'] if beside.exists() else []


def test_a_folder_is_a_list_of_pages(browser, folder, path):
    """A line for each episode, with a link to its page; an unreadable one says why on both."""
    edit({path: {'outcome': 'failure'}}, by='anna', time_ns=CREATED_NS)
    text = browser.get()
    assert f'<a href="{path.name}">' in text and 'go to the &lt;b&gt;door' in text
    line = text[text.index(path.name) :].partition('</tr>')[0]
    assert 'failure' in line and '>good<' in line and '<td>1</td>' in line
    page = browser.get(path.name)
    assert 'id="edit"' in page and "connect-src 'self'" in page and 'outcome: failure' in page
    assert 'broken.h5 cannot be read' in text
    broken = browser.get('broken.h5')
    assert 'broken.h5 cannot be read' in broken and 'id="edit"' not in broken
    assert SECRET not in text + broken
    newest = sorted(one.name for one in folder.glob('2*.h5'))[-1]
    assert f'<a href="{newest}" rel="next">' in broken, 'its neighbour in the list'
    part = folder / f'{path.name}.part'
    path.rename(part)
    assert 'id="stage"' in browser.get(part.name) and 'id="edit"' not in browser.get(part.name)
    assert 'cannot be edited' in browser.edit(part.name, outcome='success')[1]['error']
    part.unlink()
    edits.path_of(path).unlink()


def test_only_episodes_are_served_and_only_to_whom_knows_the_address(browser, folder, path):
    """No other file, whatever the path; no page without the token, or for another host."""
    token = browser.base.strip('/')
    edit({path: {'outcome': 'failure'}}, by='anna', time_ns=CREATED_NS)
    unknown = ['notes.txt', '.episodes.sqlite', edits.path_of(path).name, 'absent.h5', 'below']
    unknown += [f'below%2f{(folder / "below").iterdir().__next__().name}', '..%2fx.h5', '%00.h5']
    unknown += [f'../takes/{path.name}', '%ff.h5', f'{path.name}/']
    paths = [browser.base + name for name in unknown]
    paths += ['/', '*', f'/{token}', '/episodes/', f'/{token}x/', f'/{token[:-1]}/', '/é/']
    paths += [f'http://127.0.0.1{browser.base}', f'/{token.swapcase()}/{path.name}']
    for one in paths:
        link = f'GET {one} HTTP/1.0\r\nHost: localhost\r\n\r\n'.encode('latin-1')
        with socket.create_connection(('127.0.0.1', browser.port), timeout=60) as raw:
            raw.sendall(link)
            answer = raw.makefile('rb').read()
        assert answer.split()[1] in (b'404', b'400'), (one, answer)
        assert SECRET.encode() not in answer and token.encode() not in answer
    for host, status in (
        ('localhost', 200),
        ('localhost:9', 200),  # a port that ssh forwards
        ('evil.example', 403),
        (f'evil.example:{browser.port}', 403),
        ('127.0.0.1.evil.example', 403),
        (f'localhost@evil.example:{browser.port}', 403),
        ('', 403),
        (None, 403),
    ):
        assert browser.ask('GET', browser.base, Host=host)[0] == status, host
    _, _, headers = browser.ask('GET', browser.base)
    assert headers['Cache-Control'] == 'no-store'
    assert headers['Content-Security-Policy'] == "frame-ancestors 'none'"


def test_an_edit_must_come_from_the_page(browser, path):
    """Not from another site in the same browser, and not as a form; and it is short JSON."""
    good = json.dumps({'action': 'set', 'values': {'outcome': 'failure'}, 'why': ''}).encode()
    here = browser.base + path.name
    elsewhere = f'http://localhost:{browser.port + 1}'
    for where, body, headers, status in (
        (here, good, {'Origin': None}, 403),
        (here, good, {'Origin': 'null'}, 403),
        (here, good, {'Origin': elsewhere}, 403),
        (here, good, {'Origin': 'http://evil.example', 'Host': 'evil.example'}, 403),
        (here, good, {'Content_Type': 'text/plain'}, 415),
        (here, good, {'Content_Type': None}, 415),
        (here, good, {'Content_Length': None}, 411),
        (here, good, {'Content_Length': '-1'}, 411),
        (here, b' ' * (MAX_BODY + 1), {}, 413),
        (here, b' ' * (8 * MAX_BODY), {}, 413),
        ('/wrong/' + path.name, good, {}, 404),
        (browser.base + 'absent.h5', good, {}, 404),
        (browser.base, good, {}, 404),
        (here, b'', {}, 422),
        (here, b'\xff', {}, 422),
        (here, b'[' * 10_000, {}, 422),
        (here, b'[]', {}, 422),
        (here, b'{"action": "set", "values": [], "why": ""}', {}, 422),
        (here, b'{"action": "set", "values": {}, "why": ""}', {}, 422),
        (here, b'{"action": "undo", "values": {"split": 1}, "why": ""}', {}, 422),
        (here, b'{"action": "merge", "values": {"split": 1}, "why": ""}', {}, 422),
        (here, b'{"action": ["set"], "values": {"split": 1}, "why": ""}', {}, 422),
        (here, b'{"action": "set", "values": {"split": 1}, "why": 1}', {}, 422),
        (here, b'{"action": "set", "values": {"split": 1}}', {}, 422),
    ):
        found, text, _ = browser.ask('POST', where, body, **headers)
        assert found == status, (body[:80], headers, text)
        assert json.loads(text).keys() == {'error'}
    assert browser.ask('PUT', here, good)[0] == 501
    assert log_of(path) == []
    assert browser.ask('POST', here, good)[0] == 200


def test_an_edit_is_that_of_the_command(browser, path):
    """Who, when, what and why go into the list; the page shows what stands, and undoes it."""
    status, answer = browser.edit(path.name, trim=[0.5, 1.4], why='it stood still')
    assert status == 200 and 'trim: none -> 0.5 s, 1.4 s' in answer['done']
    (entry,) = log_of(path)
    assert entry == {
        'time_utc': '2027-01-15T08:00:00Z',
        'by': 'anna',
        'action': 'set',
        'values': {'trim': [0.5, 1.4]},
        'why': 'it stood still',
    }
    text = browser.get(path.name)
    assert 'edited: trimmed to 0.5 to 1.4 s' in text and '(it stood still)' in text
    assert browser.edit(path.name, trim=[0.5, 1.4])[1]['done'].endswith('unchanged')
    browser.edit(path.name, 'undo')
    assert browser.edit(path.name, 'undo') == (
        422,
        {'error': f'{path} has no edit to undo. See its edits with --log.'},
    )
    text = browser.get(path.name)
    assert 'edited:' not in text and '(undone)' in text and '<button disabled>Undo' in text


@pytest.mark.parametrize(
    ('values', 'sentence'),
    [
        ({'trim': [0.0, 5.0]}, 'ends at 1.900 s'),
        ({'trim': [1.31, 1.39]}, 'leaves no frame'),
        ({'trim': [1.0, 1.0]}, 'the first before the last'),
        ({'trim': [float('nan'), 1.0]}, 'two seconds'),
        ({'split': 0}, 'a split at 0 s'),
        ({'instruction': ' '}, 'instruction is'),
        ({'outcome': 'won'}, 'success, failure, unknown'),
        ({'exclude': 'a\nb'}, 'in one line'),
        ({'rotate': 90}, 'no kind of edit'),
        ({'outcome': 'failure', 'trim': [0.0, 5.0]}, 'ends at 1.900 s'),
    ],
)
def test_a_bad_edit_is_a_sentence_and_changes_nothing(browser, folder, values, sentence):
    """The same that the command prints."""
    path = min(folder.glob('2*.h5'))
    before = log_of(path)
    status, answer = browser.edit(path.name, **values)
    assert status == 422 and sentence in answer['error'] and log_of(path) == before


def test_edits_at_once_all_land(browser, path):
    """From several pages and from the command line, while pages are read."""

    def one(number: int) -> None:
        if number % 4 == 0:
            edit({path: {'instruction': f'go {number}'}}, by='otto', time_ns=CREATED_NS)
        elif number % 4 == 1:
            browser.get(path.name)
        else:
            assert browser.edit(path.name, instruction=f'go {number}')[0] == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(24)))
    found = {entry['values']['instruction'] for entry in log_of(path)}
    assert found == {f'go {number}' for number in range(24) if number % 4 != 1}
    assert len(log_of(path)) == 18


def test_a_name_of_any_signs_has_an_address(tmp_path):
    """Those of an address, and of markup."""
    odd = tmp_path / '"<b>&#?% é.h5'
    write_episode(tmp_path).rename(odd)
    with contextlib.closing(Site(tmp_path, by='anna', clock=lambda: CREATED_NS)) as site:
        assert f'<a href="{address(odd.name)}">' in site.overview()
        page = site.page(odd.name)
        assert 'id="edit"' in page and '<b>&#' not in page


START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from mobile_vla_ros.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_the_command(tmp_path):
    """It listens on the loopback, prints the address of the file's page, and leaves nothing."""
    path = write_episode(tmp_path)
    command = [sys.executable, '-c', START, 'episodes', 'view', str(path), '--serve']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url, words = process.stdout.readline().strip(), process.stdout.readline()
        port = urlsplit(url).port
        assert url.startswith('http://127.0.0.1:') and url.endswith(f'/{path.name}')
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.2', port), timeout=60)  # this machine as well
        with urlopen(url, timeout=60) as answer:
            assert b'id="edit"' in answer.read()
        readers = psutil.Process(process.pid).children()
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, '') and 'Ctrl-C ends it' in words
    assert readers and psutil.wait_procs(readers, 20)[1] == []
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name]


def test_bad_use_is_refused(folder, browser, capsys):
    """Status 2 and one line."""
    for extra, sentence in (
        (['--serve', '--open'], '--serve goes with --port alone'),
        (['--serve', '--takes', '3'], '--serve goes with --port alone'),
        (['--serve', '--out', 'a.html'], '--serve goes with --port alone'),
        (['--port', '8000'], '--serve goes with --port alone'),
        (['--serve', '--port', '70000'], 'cannot listen on port 70000'),
        (['--serve', '--port', str(browser.port)], f'cannot listen on port {browser.port}'),
    ):
        status, out, err = run_main(capsys, 'episodes', 'view', folder, *extra)
        assert (status, out, err.count('\n')) == (2, '', 1) and sentence in err


@needs_chromium
def test_a_person_trims_relabels_and_excludes_by_mouse(browser, path, tmp_path):
    """In a browser; the list beside the episode has each edit, and the page shows what stands."""
    edit_button = '#{} button:not([type])'
    with tab(tmp_path) as page:

        def press(form: str) -> None:
            done = len(log_of(path)) + 1
            page.drag(edit_button.format(form))
            page.wait(f"document.querySelectorAll('#log li').length === {done}")

        page.open(f'http://localhost:{browser.port}{browser.base}')
        page.wait(f'!!document.querySelector(\'a[href="{path.name}"]\')')
        page.drag(f'a[href="{path.name}"]')
        width = page.wait("document.getElementById('edit') && plot.getBoundingClientRect().width")
        assert page.read("document.querySelector('#trim button:not([type])').disabled")
        second = width * 704 / 800 / 1.95  # pixels
        page.drag('.end[data-end=begin] rect', 0.5 * second)
        page.drag('.end[data-end=end] rect', -0.4 * second)
        press('trim')
        assert log_of(path)[-1]['values'] == {'trim': [0.5, 1.5]}
        assert page.read("document.getElementById('about').textContent").count('trimmed to 0.5')
        assert page.read('plot.querySelectorAll(".mark").length') == 2
        for name, text in (('instruction', 'go to the "blue" door'), ('exclude', 'a <b>man</b>')):
            page.drag(f'#{name} input')
            page.type(text)
            press(name)
            assert log_of(path)[-1]['values'] == {name: text}
        assert 'a <b>man</b>' in page.read("document.getElementById('about').textContent")
        page.drag('#trim input[name=end]')
        page.type('9')
        page.drag(edit_button.format('trim'))
        page.wait("said.className === 'error' && said.textContent.includes('ends at 1.900 s')")
        press('undo')
        assert page.read("said.textContent.includes('exclude: a <b>man</b> -> none')")
        assert not page.read("document.querySelectorAll('#about b').length")
        (refused,) = page.console  # the browser's own line for the edit that was refused
        assert '422' in refused
    with Episode.open(path) as episode:
        assert (episode.instruction, len(episode)) == ('go to the "blue" door', 11)
        assert episode.excluded == ''
