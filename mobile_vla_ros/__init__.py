"""Teach a mobile base to follow an instruction by driving it: record, train, drive."""

__version__ = '0.1.0'
