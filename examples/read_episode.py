"""
Read an episode twice: with plain h5py, and with mobile_vla_ros.

    .venv/bin/python examples/read_episode.py FILE
"""

import argparse
import json
import sys

import h5py
import numpy as np

from mobile_vla_ros import Episode, UserError
from mobile_vla_ros.episode.timing.timeline import segments

USUAL_TIMEOUT_S = 0.5  # of a base that nobody described


def read_with_h5py(path: str) -> None:
    """Print an episode with any HDF5 reader; docs/episode.md lists every dataset."""
    with h5py.File(path, 'r') as file:
        # Exposures (N,) and receipts of the commands (M,) on the clock that never steps, ns.
        delay_ns = file['frames/received_ns'][:] - file['frames/stamp_ns'][:]
        frame_ns = file['frames/steady_ns'][:] - delay_ns
        command_ns = file['commands/steady_ns'][:]
        twist = file['commands/twist'][:]  # (M, 6): vx vy vz in m/s, wx wy wz in rad/s
        first, size = file['frames/offset'][0], file['frames/size'][0]
        jpeg = file['frames/bytes'][first : first + size].tobytes()  # one encoded image
        health = json.loads(file.attrs['health'] or '{}')
        # What the base does without further commands: as recorded, else as the verdict found.
        known_s = health.get('base_command_timeout_s', USUAL_TIMEOUT_S)
        timeout_s = float(file.attrs.get('base_command_timeout_s', known_s))
        print(f'instruction  {file.attrs["instruction"].decode()}')
    print(f'frames       {len(frame_ns)}, the first has {len(jpeg)} bytes')
    print(f'commands     {len(twist)}')
    print(f'verdict      {health.get("verdict")} {health.get("reasons")}')
    if not len(twist):
        return
    # A frame's command is the newest one received by then, or zero if the base has stopped; with
    # a timeout of 0 it holds the last command. Frames are timed by their header stamps here;
    # unless health['clock'] is 'sane', use frames/steady_ns.
    row = np.searchsorted(command_ns, frame_ns, side='right') - 1
    obeyed = (frame_ns - command_ns[row] <= round(timeout_s * 1e9)) | (timeout_s == 0)
    print_commands(frame_ns, np.where(((row >= 0) & obeyed)[:, None], twist[row], 0.0))


def read_with_package(path: str, rate_hz: float) -> None:
    """Print the same with mobile_vla_ros, which also samples the frames to a policy's rate."""
    with Episode.open(path) as episode:
        first = episode.frame(0)  # decoded, with its times
        health = episode.health or {}  # None for an unfinished episode
        print(f'instruction  {episode.instruction}')
        print(f'frames       {len(episode)}, the first is {first.image.shape} {first.image.dtype}')
        print(f'commands     {len(episode.commands)}')
        print(f'verdict      {health.get("verdict")} {health.get("reasons")}')
        # As training sees the episode: segments without a gap in the frames.
        for segment in segments(episode, rate_hz):
            print_commands(segment.time_ns, segment.twist)


def print_commands(time_ns: np.ndarray, twist: np.ndarray) -> None:
    """Print the command of each frame."""
    for time, (vx, vy, *_, wz) in zip(time_ns, twist, strict=True):
        print(f'  {time}  vx {vx:+.3f} m/s  vy {vy:+.3f} m/s  wz {wz:+.3f} rad/s')


def main() -> None:
    """Read the arguments, and the file."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('file', help='an episode: <UTC time>_<8 hex>.h5')
    parser.add_argument('--rate', type=float, default=10.0, help="a policy's rate in Hz (10)")
    args = parser.parse_args()
    try:
        print('with mobile_vla_ros')
        read_with_package(args.file, args.rate)
        print('with h5py')
        read_with_h5py(args.file)
    except UserError as error:  # no such file, or a broken one
        sys.exit(str(error))


if __name__ == '__main__':
    main()
