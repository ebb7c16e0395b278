"""Pages in a headless Chromium."""

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')


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
        [
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
            *flags,
            '--dump-dom',
            url,
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if 'CONSOLE' in line]
