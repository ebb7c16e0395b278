"""The backbones and policies that ship with the package."""

from pathlib import Path

from mobile_vla_ros.errors import UserError, did_you_mean

ASSETS = Path(__file__).resolve().parent.parent / 'assets'
BACKBONES = {'builtin:tiny': ASSETS / 'tiny_backbone'}
# The only backbone that is downloaded because a bundle names it.
KNOWN_HUB = 'microsoft/kosmos-2-patch14-224'
MAX_TARGET_BYTES = 4096
POLICIES = {
    'builtin:demo': ASSETS / 'demo_policy',
    'builtin:demo_diff': ASSETS / 'demo_diff_policy',
}


def is_builtin(name: Path | str) -> bool:
    """Whether a name refers to something that ships, not to a folder or a hub id."""
    return str(name).startswith('builtin:')


def backbone_folder(name: str) -> Path:
    """Return the folder of a built-in backbone; raise UserError for an unknown name."""
    return _folder('backbone', name, BACKBONES)


def bundle_folder(name: Path | str) -> Path:
    """
    Return the folder of a bundle, given by path or by the name of a built-in policy.

    The path of a link may also be that of a file that names the folder (`training.run_folder`).
    """
    if is_builtin(name):
        return _folder('policy', str(name), POLICIES)
    path = Path(name).expanduser()
    try:
        if not path.is_file():
            return path
        with path.open('rb') as file:
            target = file.read(MAX_TARGET_BYTES).decode(errors='replace').strip()
        names_folder = bool(target) and target.isprintable() and (path.parent / target).is_dir()
    except OSError:  # what cannot be read names nothing
        return path
    return path.parent / target if names_folder else path


def _folder(what: str, name: str, known: dict[str, Path]) -> Path:
    if name not in known:
        raise UserError(
            f'unknown built-in {what}',
            got=repr(name),
            expected=' or '.join(known),
            remedy=did_you_mean(name, known),
        )
    return known[name]
