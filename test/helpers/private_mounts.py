"""Small file systems that are visible to one process only."""

import shutil
import subprocess


def namespace_prefix() -> list[str] | None:
    """Return a command that gives a process private mounts, or None if none is permitted."""
    for prefix in (['unshare', '-m'], ['unshare', '-rm']):
        if (
            shutil.which('unshare')
            and not subprocess.run(
                [*prefix, 'sh', '-c', 'mount -t tmpfs none /mnt'], capture_output=True
            ).returncode
        ):
            return prefix
    return None


def on_small_disk(folder, megabytes: int, *command) -> list[str] | None:
    """Return a command that runs another with a tmpfs of that size on a folder, or None."""
    prefix = namespace_prefix()
    if prefix is None:
        return None
    mount = f'mount -t tmpfs -o size={megabytes}m none "$0" && exec "$@"'
    return [*prefix, 'sh', '-c', mount, str(folder), *map(str, command)]
