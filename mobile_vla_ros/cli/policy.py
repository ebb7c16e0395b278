"""`mobile_vla policy`: send a policy to a hub, or fetch one."""

from pathlib import Path

from mobile_vla_ros.cli.episodes import hub


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'policy',
        help='send a policy to a hub, or fetch one',
        description='Send a bundle to a hub of Hugging Face, with a page that shows its figures '
        'beside blind baselines, or fetch one.',
        epilog=hub.EXAMPLE.format(what='policy', path='runs/first/best'),
    )
    actions = parser.add_subparsers(title='actions', metavar='', required=True)
    hub.add_transfer(actions, 'policy', 'BUNDLE', _pull)


def _pull(repo: str, out: Path, revision: str | None) -> int:
    from mobile_vla_ros.hub.transfer import pull_policy

    print(f'policy: {pull_policy(repo, out, revision)}')
    return 0
