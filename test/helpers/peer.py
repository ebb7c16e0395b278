"""A policy as a program of its own, with nothing but the standard library; moods on demand."""

import json
import os
import socket
import sys
import time

SPEC = {'axes': ['linear_x', 'angular_z'], 'rate_hz': 10.0, 'window': 2, 'chunk': 5}


def answer(request: dict, images: bytes) -> dict:
    """Return a plan that shows what was received: the sum of the bytes, and whether to reset."""
    mood = request['instruction']
    if mood == 'die':
        os._exit(7)
    if mood == 'hang':
        time.sleep(3600)
    if mood == 'slow':
        time.sleep(1.0)
    if mood == 'refuse':
        return {'error': 'I do not know this word'}
    row = [sum(images) / 1e6, float('nan') if mood == 'nan' else float(request['reset'])]
    return {
        'lie': {'twists': [row[:1]] * 5},
        'words': {'twists': 'ahead'},
        'nothing': {},
        'list': [],
    }.get(mood, {'twists': [row] * 5})


def main(spec: dict) -> None:
    """Send the spec, then answer until the socket ends."""
    with socket.socket(fileno=int(os.environ['MOBILE_VLA_SOCKET'])) as ours:
        stream = ours.makefile('rwb')
        stream.write(json.dumps(spec).encode() + b'\n')
        stream.flush()
        for line in stream:
            request = json.loads(line)
            mood, reply = request['instruction'], answer(request, stream.read(request['bytes']))
            if mood != 'list':
                reply = {'id': request['id'] + 7 * (mood == 'other'), **reply}
            text = json.dumps(reply).encode() + b'\n'
            twice = 2 * text
            text = {'garbage': b'\x00\xff\n', 'flood': b'x' * (1 << 21), 'twice': twice}.get(
                mood, text
            )
            if mood == 'again':
                stream.write(text)
                stream.flush()
                time.sleep(0.2)
            stream.write(text)
            stream.flush()


if __name__ == '__main__':
    main({**SPEC, **json.loads(sys.argv[1] if len(sys.argv) > 1 else '{}')})
