"""Send a policy or episodes to a hub, and fetch them; only what was listed is sent."""

import contextlib
import fnmatch
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mobile_vla_ros.episode.catalog.inspect import vetted
from mobile_vla_ros.episode.storage import edits, schema
from mobile_vla_ros.episode.storage.reader import episodes_at
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.files import make_folder, sha256

POLICY, EPISODES = 'model', 'dataset'  # the hub's names of the kinds of repository
FETCHED, SKIPPED = 'fetched', 'skipped'
CARD = 'README.md'
# A commit each, so that an interrupted push of many episodes goes on after the last one.
FILES_A_COMMIT = 40
# What is fetched of a repository; whatever else it has stays there.
WANTED = {
    POLICY: ('policy.json', '*.safetensors', 'adapter/adapter_config.json', CARD),
    EPISODES: (f'*{schema.SUFFIX}', f'*{edits.SUFFIX}', CARD),
}


@dataclass(frozen=True)
class Shipment:
    """
    What a push sends.

    :param kind: ``POLICY`` or ``EPISODES``.
    :param files: path in the repository → file.
    :param card: text of its page.
    :param left_out: sentences on what is not sent, and on what goes with it.
    """

    kind: str
    files: dict[str, Path]
    card: str
    left_out: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """Return what would be sent: each file with its size, then the page."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        rows = [f'{size / 1e6:10.2f} MB  {name}' for name, size in sizes.items()]
        total = f'{len(sizes)} files, {sum(sizes.values()) / 1e6:.1f} MB, and {CARD}:'
        return [*rows, *self.left_out, total, *self.card.splitlines()]


def of_policy(folder: Path | str, repo: str) -> Shipment:
    """
    Return what a push of a bundle sends: the files that its manifest names, and a card.

    :raises UserError: for no bundle, or one whose files differ from its manifest.
    """
    from mobile_vla_ros.hub.cards import model_card
    from mobile_vla_ros.model.builtin import bundle_folder
    from mobile_vla_ros.model.golden import GOLDEN
    from mobile_vla_ros.model.policy_spec import MANIFEST, read_spec

    folder = bundle_folder(folder)
    spec = read_spec(folder)
    _check_bundle(folder)
    names = [MANIFEST, *spec.files, *([GOLDEN] if (folder / GOLDEN).is_file() else [])]
    return Shipment(
        POLICY,
        {name: folder / name for name in dict.fromkeys(names)},
        model_card(spec, repo),
    )


def of_episodes(path: Path, repo: str) -> Shipment:
    """
    Return what a push of a folder of episodes sends: those that a training may learn from.

    :raises UserError: when there are none.
    """
    from mobile_vla_ros.data.segments import Sampling
    from mobile_vla_ros.evaluation.audit import audit_paths
    from mobile_vla_ros.hub.cards import data_card

    paths = [one for one in episodes_at(path) if one.suffix == schema.SUFFIX]
    found = audit_paths(paths, Sampling(), ('linear_x', 'linear_y', 'angular_z'))
    left_out = found['left_out']
    kept = [one for one in paths if str(one) not in left_out]
    if not kept:
        raise UserError(
            f'{path} has no episode to send', got='; '.join(left_out.values()) or 'no episode'
        )
    files: dict[str, Path] = {}
    for one in kept:
        beside = edits.path_of(one)
        files |= {place.name: place for place in (one, beside) if place.is_file()}
    words = [f'left out: {name}: {reason}' for name, reason in left_out.items()]
    if any(name.endswith(edits.SUFFIX) for name in files):
        words.append('an edit is a list beside the recording: what a trim cuts off is sent too')
    return Shipment(EPISODES, files, data_card(found, repo), tuple(words))


def push(shipment: Shipment, repo: str, *, private: bool = False) -> str:
    """
    Send a shipment; what the repository has already is not sent again. Return its address.

    :param repo: OWNER/NAME; made if it is missing.
    :raises UserError: when the hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    additions = [
        CommitOperationAdd(name, path) for name, path in sorted(shipment.files.items())
    ] + [CommitOperationAdd(CARD, shipment.card.encode())]  # last: it speaks of all of them
    with _hub(repo):
        api = HfApi()
        address = api.create_repo(repo, repo_type=shipment.kind, private=private, exist_ok=True)
        rest = iter(additions)
        while part := list(islice(rest, FILES_A_COMMIT)):
            api.create_commit(
                repo,
                part,
                repo_type=shipment.kind,
                commit_message=f'mobile_vla: {part[0].path_in_repo} and {len(part) - 1} more',
            )
    return str(address)


def pull_policy(repo: str, out: Path, revision: str | None = None) -> Path:
    """
    Fetch a policy into a new folder; return it.

    :raises UserError: when the hub refuses or cannot be reached, the folder exists, or what comes
        is not a bundle, whole and as its manifest says.
    """
    from mobile_vla_ros.model.bundle import check_new

    check_new(out)
    with _fetched(repo, POLICY, out, revision) as folder:
        _check_bundle(folder)
        folder.rename(out)
    return out


def pull_episodes(repo: str, out: Path, revision: str | None = None) -> dict[str, str]:
    """
    Fetch episodes into a folder, beside those that are there.

    :returns: name → ``fetched``; ``skipped`` (it is there); or why it was left out.
    :raises UserError: when the hub refuses or cannot be reached, or there are no episodes.
    """
    make_folder(out)
    results = {}
    with _fetched(repo, EPISODES, out, revision) as folder:
        paths = sorted(folder.glob(f'*{schema.SUFFIX}'))
        if not paths:
            raise UserError(f'{repo} has no episodes', expected=f'files *{schema.SUFFIX} in it')
        for path, fault in vetted(paths):
            place, beside = out / path.name, edits.path_of(path)
            if fault is not None:
                results[path.name] = str(fault)
            elif place.exists():
                same = sha256(place) == sha256(path)
                results[path.name] = SKIPPED if same else f'{place} exists and differs'
            else:
                if beside.is_file():
                    beside.rename(out / beside.name)
                path.rename(place)
                results[path.name] = FETCHED
    return results


@contextlib.contextmanager
def _fetched(repo: str, kind: str, out: Path, revision: str | None) -> Iterator[Path]:
    """Yield a hidden folder beside the output with what is wanted; an interrupted one goes on."""
    from huggingface_hub import snapshot_download

    out = out.absolute()
    folder = out.with_name(f'.{out.name}.pulling')
    with _hub(repo):
        snapshot_download(
            repo,
            repo_type=kind,
            revision=revision,
            local_dir=folder,
            allow_patterns=list(WANTED[kind]),
        )
    shutil.rmtree(folder / '.cache', ignore_errors=True)
    for path in [one for one in folder.rglob('*') if one.is_file()]:
        name = path.relative_to(folder).as_posix()
        if not any(fnmatch.fnmatch(name, one) for one in WANTED[kind]):
            path.unlink()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _hub(repo: str) -> Iterator[None]:
    """Turn what the hub's client raises into sentences."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError:
        raise UserError('a repository is named OWNER/NAME', got=repr(repo)) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f'the hub has no {repo}, or does not show it to you',
            expected='a repository that exists',
            remedy='check the name; for a private one run: hf auth login',
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f'{repo} has no such revision', remedy='omit --revision') from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, 'status_code', None)
        raise UserError(
            f'the hub refuses {repo}',
            got=first_line(error),
            remedy='run: hf auth login' if status in (401, 403) else 'try it again',
        ) from None
    except Exception as error:  # its client raises errors of several libraries
        raise UserError(
            f'the transfer of {repo} failed ({first_line(error)})',
            expected='a hub that can be reached',
            remedy='try it again: it goes on where it was',
        ) from None


def _check_bundle(folder: Path) -> None:
    """Raise UserError unless a folder has the files of its manifest, unchanged."""
    from mobile_vla_ros.model.policy_spec import read_spec

    spec = read_spec(folder)
    for name, wanted in spec.files.items():
        path = folder / name
        if not path.is_file() or sha256(path) != wanted:
            raise UserError(
                f'the policy in {folder} is not whole',
                got=f'{name} differs from its policy.json' if path.is_file() else f'no {name}',
                remedy='train or fetch it again',
            )
