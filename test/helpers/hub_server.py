"""The part of the hub's HTTP interface that pushes and pulls use, on the loopback."""

import base64
import hashlib
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = 'hf_of_the_test'
LFS = ('.h5', '.safetensors')


class Hub:
    """
    A hub with its repositories in memory.

    :ivar files: ``models/OWNER/NAME`` or ``datasets/OWNER/NAME`` → path → bytes.
    :ivar uploads: SHA-256 of the large files in the order in which they came.
    :ivar commits: number of commits so far; after ``fail_after`` of them each is refused.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.uploads: list[str] = []
        self.stored: dict[str, bytes] = {}
        self.commits = 0
        self.fail_after = 1_000
        self.requests: dict[str, int] = defaultdict(int)
        hub = self

        class Handler(_Handler):
            """The handler of this hub."""

            server_hub = hub

        self._server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def environment(self, home: Path, token: str = TOKEN) -> dict[str, str]:
        """Return what a process needs to talk to this hub alone."""
        return {
            'HF_ENDPOINT': self.url,
            'HF_HOME': str(home),
            'HF_TOKEN': token,
            'HF_HUB_DISABLE_XET': '1',
            'HF_HUB_OFFLINE': '0',
        }

    def close(self) -> None:
        """Close the server."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_hub: Hub
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        if self.headers.get('Transfer-Encoding') == 'chunked':
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b''.join(parts)
        return self.rfile.read(int(self.headers.get('Content-Length', 0)))

    def _send(self, status: int, content: object = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def _allowed(self) -> bool:
        return self.headers.get('Authorization') == f'Bearer {TOKEN}'

    def do_POST(self) -> None:
        """Make a repository, say how files come, and take a commit."""
        hub, body = self.server_hub, self._body()
        hub.requests[self.path] += 1
        if not self._allowed():
            return self._send(401, {'error': 'Invalid username or password.'})
        if self.path == '/api/repos/create':
            wanted = json.loads(body)
            name = '/'.join(filter(None, (wanted.get('organization'), wanted['name'])))
            place = f'{wanted.get("type") or "model"}s/{name}'
            if place in hub.files:
                return self._send(409, {'error': 'exists', 'url': f'{hub.url}/{name}'})
            hub.files[place] = {}
            if wanted.get('private') or wanted.get('visibility') == 'private':
                hub.private.add(place)
            return self._send(200, {'url': f'{hub.url}/{place.removeprefix("models/")}'})
        if self.path == '/api/validate-yaml':
            return self._send(200, {'errors': [], 'warnings': []})
        if '/preupload/' in self.path:
            files = json.loads(body)['files']
            return self._send(
                200,
                {
                    'files': [
                        {
                            'path': one['path'],
                            'uploadMode': 'lfs' if one['path'].endswith(LFS) else 'regular',
                            'shouldIgnore': False,
                        }
                        for one in files
                    ]
                },
            )
        if self.path.endswith('/info/lfs/objects/batch'):
            objects = []
            for one in json.loads(body)['objects']:
                found = {'oid': one['oid'], 'size': one['size']}
                if one['oid'] not in hub.stored:
                    found['actions'] = {'upload': {'href': f'{hub.url}/lfs/{one["oid"]}'}}
                objects.append(found)
            return self._send(200, {'transfer': 'basic', 'objects': objects})
        if '/commit/' in self.path:
            return self._commit(body)
        return self._send(404, {'error': self.path})

    def _commit(self, body: bytes) -> None:
        hub = self.server_hub
        if hub.commits >= hub.fail_after:
            return self._send(500, {'error': 'the disk of the hub is full'})
        hub.commits += 1
        place = self.path.removeprefix('/api/').split('/commit/')[0]
        repo = hub.files[place]
        for line in body.splitlines():
            one = json.loads(line)
            value = one['value']
            if one['key'] == 'file':
                repo[value['path']] = base64.b64decode(value['content'])
            elif one['key'] == 'lfsFile':
                repo[value['path']] = hub.stored[value['oid']]
            elif one['key'] == 'deletedFile':
                del repo[value['path']]
        address = f'{hub.url}/{place.removeprefix("models/")}/commit/{self._revision()}'
        return self._send(
            200, {'commitUrl': address, 'commitOid': self._revision(), 'success': True}
        )

    def do_PUT(self) -> None:
        """Take a large file."""
        data = self._body()
        name = self.path.rpartition('/')[2]
        assert hashlib.sha256(data).hexdigest() == name
        self.server_hub.stored[name] = data
        self.server_hub.uploads.append(name)
        self._send(200)

    @staticmethod
    def _tree(files: dict[str, bytes]) -> list[dict]:
        return [
            {
                'type': 'file',
                'path': name,
                'size': len(data),
                'oid': hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest(),
            }
            for name, data in files.items()
        ]

    def _revision(self) -> str:
        return f'{self.server_hub.commits:040x}'

    def do_HEAD(self) -> None:
        """Say what a file is."""
        self.do_GET()

    def do_GET(self) -> None:
        """List a repository, or send a file."""
        hub, path = self.server_hub, self.path.split('?')[0].strip('/')
        hub.requests[self.path] += 1
        missing = {'X_Error_Code': 'RepoNotFound'}
        if path.startswith('api/'):
            place, tree, revision = path.removeprefix('api/').partition('/tree/')
            if tree:
                return self._send(200, self._tree(hub.files[place]))
            place, _, revision = place.partition('/revision/')
            if place not in hub.files or (place in hub.private and not self._allowed()):
                return self._send(404, **missing)
            if revision not in ('', 'main', self._revision()):
                return self._send(404, X_Error_Code='RevisionNotFound')
            siblings = [{'rfilename': name} for name in hub.files[place]]
            name = place.partition('/')[2]
            content = {'_id': '1', 'id': name, 'sha': self._revision(), 'siblings': siblings}
            about = {'tags': [], 'private': place in hub.private, 'downloads': 0}
            return self._send(200, content | about)
        place, found, rest = path.partition('/resolve/')
        place = place if place.startswith('datasets/') else f'models/{place}'
        data = hub.files.get(place, {}).get(rest.partition('/')[2]) if found else None
        if data is None:
            return self._send(404, **missing)
        etag = hashlib.sha256(data).hexdigest()
        return self._send(200, data, ETag=f'"{etag}"', X_Repo_Commit=self._revision())
