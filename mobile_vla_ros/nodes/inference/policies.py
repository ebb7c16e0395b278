"""The policy that drives, the one before it, and the next one, loaded beside them."""

import threading
import traceback
from collections.abc import Callable

import psutil

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.guard_status import GuardStatusListener

# One load at a time in a process: what torch's loaders set, all threads see.
LOADS = threading.Lock()
NONE, LOADING, READY, REFUSED = 'none', 'loading', 'ready', 'refused'


def resident_gb() -> float:
    """Return the memory that this process holds, in 10^9 bytes, that of its GPU included."""
    import torch

    on_gpu = torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0
    return (psutil.Process().memory_info().rss + on_gpu) / 1e9


def in_the_way(guard: GuardStatusListener, proposing: bool) -> str:
    """Return why the policy may not be swapped now, '' when it may: only a base at rest is."""
    if guard.status is not None:
        return '' if guard.stopped else 'the base is driven; disarm the guard (guard/disarm) first'
    return 'no guard says that the base is at rest, and there are proposals' if proposing else ''


class Policies:
    """
    Holds policies by the part that they play.

    :param load: gives a ``runtime.loading.ReadyPolicy`` for a name; raises ``UserError``.
    :param room: what is wrong with the free memory in words, '' when there is enough.
    :param take: makes a ``ReadyPolicy`` drive; called in the caller's thread of ``swap``.
    :param say: logs a sentence.
    """

    def __init__(
        self,
        *,
        load: Callable,
        room: Callable[[], str],
        take: Callable,
        say: Callable[[str], None],
    ):
        self._load, self._room, self._take, self._say = load, room, take, say
        self._lock = threading.Lock()
        self._asked = 0
        self.now = self.before = self._next = None
        self.state, self.said = NONE, ''

    def first(self, name: str) -> None:
        """Load the one to begin with; raises ``UserError``."""
        with LOADS:
            self.now = self._load(name)

    def ask(self, name: str) -> None:
        """Load another beside the one that drives; '' forgets what was loaded so."""
        with self._lock:
            self._asked += 1
            self._next = None
            self.state, self.said = (LOADING, f'{name} is being loaded') if name else (NONE, '')
            number = self._asked
        if name:
            threading.Thread(
                target=self._fetch, args=(name, number), name='next policy', daemon=True
            ).start()

    def swap(self, forbidden: str) -> tuple[bool, str]:
        """
        Let the next one drive.

        :param forbidden: why it may not be done now, '' when it may.
        :returns: whether it was done, and a sentence.
        """
        with self._lock:
            if self._next is None:
                return False, (
                    f'Not swapped: no next policy is ready ({self.said or "none"}). '
                    'Set the parameter next_policy.'
                )
            if forbidden:
                return False, f'Not swapped: {forbidden}.'
            self.before, self.now, self._next = self.now, self._next, None
            self.state, self.said = NONE, ''
            self._take(self.now)
        return True, f'{self.now.name} drives now; ~/swap_back returns to {self.before.name}.'

    def swap_back(self, forbidden: str) -> tuple[bool, str]:
        """Let the one before drive again; see ``swap``."""
        with self._lock:
            if self.before is None:
                return False, 'Not swapped back: there is no policy before this one.'
            if forbidden:
                return False, f'Not swapped back: {forbidden}.'
            self.before, self.now = self.now, self.before
            self._take(self.now)
        return True, f'{self.now.name} drives again; ~/swap_back returns to {self.before.name}.'

    def _fetch(self, name: str, number: int) -> None:
        with LOADS:
            if number != self._asked:
                return  # another one was asked for meanwhile
            ready, said = self._try(name)
        with self._lock:
            if number != self._asked:
                return
            self._next = ready
            self.state, self.said = (READY if ready else REFUSED), said
        self._say(said)

    def _try(self, name: str) -> tuple:
        """Return what was loaded, None when it must not drive, and a sentence."""
        before_gb = resident_gb()
        try:
            # What has no room is not even begun: the one that drives would be killed with it.
            scarce = self._room()
            ready = None if scarce else self._load(name)
            scarce = scarce or self._room()
        except UserError as error:
            return None, f'{name} is refused: {error}'
        except Exception as error:  # the one that drives goes on, whatever this one is
            self._say(traceback.format_exc())
            return None, f'{name} is refused: {type(error).__name__}: {error}'
        if scarce or not ready.golden_ok:
            return None, f'{name} is refused: {scarce or ready.golden_sentence}'
        return ready, (
            f'{name} is ready: {ready.golden_sentence}; {resident_gb():.2f} GB are held, '
            f'{before_gb:.2f} GB before; ~/swap lets it drive'
        )
