"""Pages in a headless Chromium."""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')

# The browser reads commands from its descriptor 3 and writes answers to 4.
PIPED = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD_CLOEXEC, 10) for end in sys.argv[1:3]]
for number, end in enumerate(ends, 3):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""

# Before, a browser drops what a mouse does.
SHOWN = 'new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))'
MIDDLE = """(function (element) {
  element.scrollIntoView({block: 'nearest'});
  var box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})(document.querySelector(%s))"""


def with_script(page: Path, script: str, folder: Path) -> Path:
    """
    Copy a page into a folder, with a script at its end; return the copy.

    Its Content-Security-Policy allows this script too, and stays in force for everything else.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.read_text().replace("script-src 'none'", 'script-src', 1)
    text = text.replace('script-src', f"script-src 'sha256-{digest}'", 1)
    copy = folder / 'page.html'
    copy.write_text(text.replace('</body>', f'<script>{script}</script></body>'))
    return copy


def dump_dom(url: str, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """
    Open a page and return its document after its scripts, and the lines of the console.

    :param profile: an empty folder for the browser's own files.
    :param flags: more flags of Chromium.
    """
    done = subprocess.run(
        [*command(profile), *flags, '--dump-dom', url],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if 'CONSOLE' in line]


def command(profile: Path) -> list[str]:
    """Return the command line of a headless Chromium that leaves the network alone."""
    return [
        CHROMIUM,
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        f'--user-data-dir={profile}',
        '--enable-logging=stderr',
    ]


class Tab:
    """A page in a browser, used as a person does: by mouse and keyboard."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = os.fdopen(to_browser, 'wb', 0), os.fdopen(from_browser, 'rb')
        self._sent = 0
        self._session: dict[str, str] = {}
        self._unread = b''
        self.console: list[str] = []
        target = self._call('Target.createTarget', url='about:blank')['targetId']
        found = self._call('Target.attachToTarget', targetId=target, flatten=True)
        self._session = {'sessionId': found['sessionId']}
        for domain in ('Page', 'Runtime', 'Log'):
            self._call(f'{domain}.enable')

    def close(self) -> None:
        """Close the connection; the browser then ends."""
        self._to.close()
        self._from.close()

    def open(self, url: str) -> None:
        """Go to an address."""
        self._call('Page.navigate', url=url)

    def read(self, script: str) -> Any:
        """Return the value of an expression in the page; None while there is none."""
        found = self._call('Runtime.evaluate', expression=script, returnByValue=True)
        return found.get('result', {}).get('value')

    def wait(self, script: str, limit_s: float = 30.0) -> Any:
        """Wait until an expression is true in a page that has loaded and is shown; return it."""
        end = time.monotonic() + limit_s
        while not (found := self.read(f"document.readyState === 'complete' && ({script})")):
            assert time.monotonic() < end, f'{script} did not become true: {self.console}'
            time.sleep(0.02)
        self._call('Runtime.evaluate', expression=SHOWN, awaitPromise=True)
        return found

    def drag(self, selector: str, right: float = 0.0) -> None:
        """Press the mouse on an element, move by pixels to the right, and let go."""
        x, y = self.read(MIDDLE % json.dumps(selector))
        self._mouse('mouseMoved', x, y, 0)
        self._mouse('mousePressed', x, y, 1)
        for part in range(1, 6) if right else ():
            self._mouse('mouseMoved', x + right * part / 5, y, 1)
        self._mouse('mouseReleased', x + right, y, 0)

    def type(self, text: str) -> None:
        """Type a text where the focus is, instead of what is there."""
        self.read('document.activeElement.select()')
        self._call('Input.insertText', text=text)

    def screenshot(self, path: Path) -> None:
        """Write what the page shows, a PNG."""
        path.write_bytes(base64.b64decode(self._call('Page.captureScreenshot')['data']))

    def _mouse(self, kind: str, x: float, y: float, buttons: int) -> None:
        button = {'button': 'left', 'clickCount': 1} if kind != 'mouseMoved' else {}
        self._call('Input.dispatchMouseEvent', type=kind, x=x, y=y, buttons=buttons, **button)

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol; return its result, {} if the page is gone."""
        self._sent += 1
        message = {'id': self._sent, 'method': method, 'params': params, **self._session}
        self._to.write(json.dumps(message).encode() + b'\0')
        while True:
            answer = self._message()
            if answer.get('method') in ('Runtime.exceptionThrown', 'Log.entryAdded'):
                self.console.append(json.dumps(answer['params']))
            if answer.get('id') == self._sent:
                return answer.get('result', {})

    def _message(self) -> dict[str, Any]:
        while b'\0' not in self._unread:
            piece = os.read(self._from.fileno(), 1 << 20)
            assert piece, 'the browser ended'
            self._unread += piece
        first, self._unread = self._unread.split(b'\0', 1)
        return json.loads(first)


@contextlib.contextmanager
def tab(profile: Path, width: int = 1300, height: int = 1000) -> Iterator[Tab]:
    """Start a browser with an empty page; end it with the block."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    flags = ['--remote-debugging-pipe', f'--window-size={width},{height}']
    process = subprocess.Popen(
        [sys.executable, '-c', PIPED, str(to_read), str(from_write), *command(profile), *flags],
        pass_fds=(to_read, from_write),
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    try:
        page = Tab(to_write, from_read)
        with contextlib.closing(page):
            yield page
        process.wait(20)
    finally:
        process.kill()
        process.wait()
