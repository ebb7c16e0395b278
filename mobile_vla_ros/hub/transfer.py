"""Send a policy or episodes to a hub, and fetch them; only what was listed is sent."""

import contextlib
import fnmatch
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_vla_ros.episode.catalog.inspect import vetted
from mobile_vla_ros.episode.storage import edits, schema
from mobile_vla_ros.episode.storage.reader import episodes_at
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.files import make_folder, sha256
from mobile_vla_ros.types import PLANAR_AXES

if TYPE_CHECKING:
    from mobile_vla_ros.model.policy_spec import PolicySpec

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
    left_out: tuple[str, ...] = ()

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
    from mobile_vla_ros.model.policy_spec import FILES, GOLDEN, MANIFEST

    folder = bundle_folder(folder)
    spec = _checked_bundle(folder)
    names, words = [MANIFEST, *FILES], tuple[str, ...]()
    if (folder / GOLDEN).is_file():
        names.append(GOLDEN)
        words = (f'{GOLDEN} has camera images of where it was trained',)
    files = {name: folder / name for name in names}
    return Shipment(POLICY, files, model_card(spec, repo), words)


def of_episodes(path: Path, repo: str) -> Shipment:
    """
    Return what a push of a folder of episodes sends: those that a training may learn from.

    :raises UserError: when there are none.
    """
    from mobile_vla_ros.data.segments import Sampling
    from mobile_vla_ros.evaluation.audit import audit_paths
    from mobile_vla_ros.hub.cards import data_card

    paths = [one for one in episodes_at(path) if one.suffix == schema.SUFFIX]
    found = audit_paths(paths, Sampling(), PLANAR_AXES)
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
    if left_out:  # the page is about what is sent
        found = audit_paths(kept, Sampling(), PLANAR_AXES)
    return Shipment(EPISODES, files, data_card(found, repo), tuple(words))


def push(shipment: Shipment, repo: str, *, private: bool = False) -> str:
    """
    Send a shipment, and remove what an earlier one had more. Return its address.

    What the repository has already is not sent again; its history keeps what is removed.

    :param repo: OWNER/NAME; made if it is missing.
    :raises UserError: when the hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    with _hub(repo):
        api, kind = HfApi(), shipment.kind
        address = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        if private and not api.repo_info(repo, repo_type=kind).private:
            raise UserError(
                f'{repo} is public',
                expected='a private repository, as --private asks for',
                remedy='make it private on the hub, or choose another name; nothing was sent',
            )
        there = api.list_repo_files(repo, repo_type=kind)
        stale = [one for one in there if _wanted(one, kind) and one not in (*shipment.files, CARD)]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, path) for name, path in sorted(shipment.files.items())
        ]
        operations += [CommitOperationDelete(name) for name in stale]
        # Last: it speaks of all of them.
        rest = iter([*operations, CommitOperationAdd(CARD, shipment.card.encode())])
        while part := list(islice(rest, FILES_A_COMMIT)):
            api.create_commit(
                repo,
                part,
                repo_type=kind,
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
        _checked_bundle(folder)
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
                results[path.name] = _beside(path, place)
            else:
                if beside.is_file():
                    beside.rename(out / beside.name)
                path.rename(place)
                results[path.name] = FETCHED
    return results


def _beside(path: Path, place: Path) -> str:
    """Return what becomes of a fetched episode that is there: its edits may be new."""
    ours, theirs = edits.path_of(place), edits.path_of(path)
    if sha256(place) != sha256(path):
        return f'{place} exists and differs'
    if not theirs.is_file() or (ours.is_file() and sha256(ours) == sha256(theirs)):
        return SKIPPED
    if ours.is_file():
        return f'{ours} has other edits: move it away to take theirs'
    theirs.rename(ours)
    return FETCHED


def _wanted(name: str, kind: str) -> bool:
    return any(fnmatch.fnmatch(name, one) for one in WANTED[kind])


@contextlib.contextmanager
def _fetched(repo: str, kind: str, out: Path, revision: str | None) -> Iterator[Path]:
    """Yield a hidden folder beside the output with what is wanted; an interrupted one goes on."""
    from huggingface_hub import snapshot_download

    out = out.absolute()
    about = hashlib.sha256(f'{kind} {repo} {revision}'.encode()).hexdigest()[:8]
    folder = out.with_name(f'.{out.name}.{about}.pulling')
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
        if not _wanted(name, kind):
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
        if repo.count('/') != 1:  # it takes names without an owner
            raise errors.HFValidationError
        yield
    except UserError:
        raise
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


def _checked_bundle(folder: Path) -> 'PolicySpec':
    """Return the spec of a bundle; raise UserError unless its files are those of its manifest."""
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
    return spec
