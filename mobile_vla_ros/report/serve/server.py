"""
The HTTP server of `mobile_vla episodes view --serve`: who may ask, and for what.

It listens on the loopback alone. Every request needs the token in the address, which other users
and programs of this machine do not know, and a Host of this machine: a web site that points its
own name here (DNS rebinding) is refused. An edit must come from a page of this server (Origin).
"""

import contextlib
import json
import secrets
import socketserver
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mobile_vla_ros.episode.catalog.edit import user
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.report.serve.site import NoEpisode, Site, address

HOST = '127.0.0.1'
HOSTS = (HOST, 'localhost')  # with any port: ssh may forward another one
MAX_BODY = 64 << 10  # bytes of an edit
MAX_UNREAD = 1 << 20  # bytes that are read of a larger one, so that its sender reads the answer
PIECE = 64 << 10  # bytes that are sent within TIMEOUT_S
TIMEOUT_S = 30.0
HEADERS = {
    'Cache-Control': 'no-store',
    'Content-Security-Policy': "frame-ancestors 'none'",  # the rest is in the page
    'Referrer-Policy': 'same-origin',
    'X-Content-Type-Options': 'nosniff',
}
TEXT, HTML, JSON = 'text/plain; charset=utf-8', 'text/html; charset=utf-8', 'application/json'


class Refused(Exception):
    """
    A request that is not answered.

    :param status: of HTTP; ``args[0]`` is a sentence.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def status_of(error: Exception) -> int:
    """Return the status of HTTP for a request that is not answered."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, NoEpisode):
        return 404
    return 422 if isinstance(error, UserError) else 500


class EpisodeServer(ThreadingHTTPServer):
    """
    Serves a ``Site`` on the loopback; ``serve_forever`` runs until Ctrl-C.

    :param port: 0: any that is free.
    :raises UserError: if the port cannot be had.
    """

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site = site
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f'cannot listen on port {port}',
                got=getattr(error, 'strerror', None) or error,
                expected='a free port from 1024 to 65535',
                remedy='leave --port out for any that is free',
            ) from None

    def server_bind(self) -> None:
        """Bind without looking up a name for the loopback, which can take long."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of a defect; a browser may leave at any time."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: EpisodeServer
    server_version, sys_version = 'mobile_vla', ''
    error_message_format, error_content_type = '%(message)s\n', TEXT
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        """Answer with the list of episodes or the page of one."""

        def page() -> str:
            name = self._name()
            return self.server.site.page(name) if name else self.server.site.overview()

        self._answer(page, HTML)

    def do_POST(self) -> None:
        """Edit an episode; answer with JSON: ``done`` or ``error``, a sentence."""

        def edit() -> str:
            body = self._body()
            name = self._name()
            origin, kind = self.headers.get('Origin'), self.headers.get('Content-Type')
            if origin != f'http://{self.headers["Host"]}':
                raise Refused(403, 'Only the page of this server may edit episodes.')
            if kind != JSON:
                raise Refused(415, f'An edit must be {JSON}.')
            return json.dumps({'done': self.server.site.edit(name, body)})

        self._answer(edit, JSON)

    def log_message(self, *_: Any) -> None:
        """Print nothing: the address holds the token."""

    def _answer(self, work: Callable[[], str], kind: str) -> None:
        status = 200
        try:
            text = work()
        except (Refused, UserError, OSError) as error:
            status = status_of(error)
            text, kind = (
                (json.dumps({'error': str(error)}), JSON) if kind == JSON else (f'{error}\n', TEXT)
            )
        data = text.encode(errors='replace')
        self.send_response(status)
        for name, value in {
            **HEADERS,
            'Content-Type': kind,
            'Content-Length': str(len(data)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        for first in range(0, len(data), PIECE):
            self.wfile.write(data[first : first + PIECE])

    def _name(self) -> str:
        """Return the name of the episode in the address, '' for the list."""
        host = self.headers.get('Host', '').rpartition(':')
        if (host[0] or host[2]) not in HOSTS:
            raise Refused(403, f'The host must be {" or ".join(HOSTS)}.')
        parts = self.path.partition('?')[0].split('/')
        token = parts[1] if len(parts) > 1 else ''
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(404, 'Open the whole address that mobile_vla episodes view printed.')
        if len(parts) != 3:
            raise Refused(404, 'There is no such page.')
        return unquote(parts[2], errors='surrogateescape')

    def _body(self) -> bytes:
        length = self.headers.get('Content-Length', '')
        if not (length.isascii() and length.isdecimal() and len(length) < 20):
            raise Refused(411, 'The length of the edit is missing.')
        if int(length) > MAX_BODY:
            self.rfile.read(min(int(length), MAX_UNREAD))
            raise Refused(413, f'An edit has at most {MAX_BODY} bytes.')
        return self.rfile.read(int(length))


def serve(path: Path, port: int, started: Callable[[str], None]) -> None:
    """
    Serve a folder of episodes, or one file, until Ctrl-C.

    :param started: called with the address.
    :raises UserError: if the port cannot be had.
    """
    with (
        contextlib.closing(Site(path, by=user(), clock=time.time_ns)) as site,
        EpisodeServer(site, port) as server,
        contextlib.suppress(KeyboardInterrupt),
    ):
        page = address(path.name) if path.is_file() else ''
        started(f'http://{HOST}:{server.server_address[1]}/{server.token}/{page}')
        server.serve_forever()
