"""`mobile_vla episodes` and its subcommands."""

from mobile_vla_ros.cli.episodes.command import register

__all__ = ['register']
