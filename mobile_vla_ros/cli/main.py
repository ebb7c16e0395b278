"""`mobile_vla`: run a subcommand; print a user error as a sentence."""

import argparse
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import TextIO, cast

from mobile_vla_ros import __version__
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.plain_text import PlainStream

# Modules with `register(subparsers)`; heavy imports belong in their functions.
SUBCOMMANDS = (
    *('demo', 'train', 'evaluate', 'simulate', 'compare', 'quantise'),
    *('replay', 'drill', 'episodes', 'policy', 'bench'),
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every subcommand."""
    parser = argparse.ArgumentParser(
        prog='mobile_vla',
        description='Teach a mobile base to follow an instruction by driving it: record, train, '
        'drive.',
        epilog='example: mobile_vla demo',
    )
    parser.add_argument('--version', action='version', version=f'mobile_vla_ros {__version__}')
    subparsers = parser.add_subparsers(title='subcommands', metavar='', required=True)
    for name in SUBCOMMANDS:  # here, so that main() handles Ctrl-C during imports
        import_module(f'mobile_vla_ros.cli.{name}').register(subparsers)
    return parser


def main(argv: list[str] | None = None) -> int:
    """
    Run `mobile_vla`.

    :returns: 0; 1 if the result is negative; 2 for a user error; 130 after Ctrl-C.
    """
    # What a file says must not move the cursor; progress bars return to the start of their line.
    with (
        redirect_stdout(cast(TextIO, PlainStream(sys.stdout, '\n\t'))),
        redirect_stderr(cast(TextIO, PlainStream(sys.stderr, '\n\t\r'))),
    ):
        return _run(argv)


def _run(argv: list[str] | None) -> int:
    try:
        parser = build_parser()
        args, rest = parser.parse_known_args(argv)
        if rest and not getattr(args, 'parses_rest', False):
            parser.error(f'unknown arguments: {" ".join(rest)}')
        return args.run(args, rest) if getattr(args, 'parses_rest', False) else args.run(args)
    except UserError as error:
        print(f'mobile_vla: error: {error}', file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of a pipe (`head`) has closed it.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print('mobile_vla: stopped', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
