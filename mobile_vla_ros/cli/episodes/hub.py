"""`push` and `pull` of episodes and, for `mobile_vla policy`, of policies."""

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

EXAMPLE = 'example: mobile_vla {what} push {path} OWNER/NAME --yes'


def add(actions) -> None:
    """Add both actions."""
    add_transfer(actions, 'episodes', 'DIR', _pull)


def add_transfer(
    actions, what: str, path: str, pull: Callable[[str, Path, str | None], int]
) -> None:
    """
    Add push and pull.

    :param what: ``episodes`` or ``policy``.
    :param path: metavariable of what is sent.
    :param pull: called with the repository, the folder and the revision.
    """
    push = actions.add_parser(
        'push',
        help='list what would be sent to a hub; with --yes, send it',
        description='List the files that would be sent and their page; with --yes, send them.',
        epilog=EXAMPLE.format(what=what, path=path),
    )
    push.add_argument('path', type=Path, metavar=path)
    push.add_argument('--private', action='store_true', help='a new repository is private')
    push.add_argument('--yes', action='store_true', help='send it')
    push.set_defaults(run=_push, what=what)
    fetch = actions.add_parser('pull', help='fetch from a hub')
    for action in (push, fetch):
        action.add_argument('repo', metavar='OWNER/NAME', help='repository on the hub')
    fetch.add_argument('out', type=Path, metavar='DIR', help='where to')
    fetch.add_argument('--revision', help='commit, branch or tag (newest)')
    fetch.set_defaults(run=lambda args: pull(args.repo, args.out.expanduser(), args.revision))


def _push(args: argparse.Namespace) -> int:
    from mobile_vla_ros.hub import transfer

    make = transfer.of_policy if args.what == 'policy' else transfer.of_episodes
    shipment = make(args.path, args.repo)
    print('\n'.join(shipment.lines()))
    if args.yes:
        print(f'sent: {transfer.push(shipment, args.repo, private=args.private)}')
    else:
        print(f'\nNothing was sent. To send it to {args.repo}, add --yes.')
    return 0


def _pull(repo: str, out: Path, revision: str | None) -> int:
    from mobile_vla_ros.hub.transfer import FETCHED, SKIPPED, pull_episodes

    results = pull_episodes(repo, out, revision)
    left_out = {name: why for name, why in results.items() if why not in (FETCHED, SKIPPED)}
    for name, why in left_out.items():
        print(f'{name}: left out: {why}')
    counts = Counter(why for name, why in results.items() if name not in left_out)
    print(f'{out}: {counts[FETCHED]} fetched, {counts[SKIPPED]} skipped, {len(left_out)} left out')
    return int(bool(left_out))
