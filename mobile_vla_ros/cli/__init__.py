"""The command `mobile_vla`: one module a subcommand."""

import argparse


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Add how and with what a policy is computed."""
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:1 …')
    parser.add_argument('--precision', default='auto', help='auto, fp32, bf16, fp16 or int8')
    parser.add_argument('--offline', action='store_true', help='never access the hub')
    parser.add_argument(
        '--backbone',
        default='',
        metavar='FOLDER',
        help="the policy's backbone, where it is neither beside it nor in the hub's cache",
    )


def computing(args: argparse.Namespace) -> dict:
    """Return the arguments of `add_computing` by name."""
    return {name: getattr(args, name) for name in ('device', 'precision', 'offline', 'backbone')}
