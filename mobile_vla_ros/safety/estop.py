"""Which messages of the e-stop count, and which of its publishers a drive relies on."""

from collections.abc import Iterable
from dataclasses import dataclass

from mobile_vla_ros.safety.preflight import Endpoint, Key

KEPT_COPIES = 4096
# Polls in a row in which a publisher must be missing: discovery loses endpoints for a moment.
MIN_MISSING = 2


class EstopOrder:
    """
    Lets every press count, and no release that was sent before the press.

    On one subscription messages come in the order in which they were sent, whatever the clocks
    are; between subscriptions that order is only estimated. So the estimate may refuse a release,
    but never a press.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, bool], None] = {}  # the oldest first
        self._presses: dict[int, int] = {}  # stamp of the newest press, by subscription
        self._held: tuple[int, int] | None = None  # its stamp, and the estimate for it

    def counts(self, pressed: bool, subscription: int, stamp_ns: int, sent_ns: int) -> bool:
        """
        Record the next message of a subscription; return whether it counts.

        A press counts unless it is a copy. A release counts if it follows the held press on the
        same subscription, or if it is no copy and was sent after the press, by the estimate.

        :param subscription: its index.
        :param stamp_ns: time of sending on the sender's clock, which may be set; 0 if unknown.
        :param sent_ns: the receiver's estimate of it, on ``steady_ns``.
        """
        copy = self._is_copy(stamp_ns, pressed)
        if pressed:
            self._presses[subscription] = stamp_ns
            if not copy:
                self._held = stamp_ns, sent_ns
            return not copy
        if self._held is None:
            return not copy
        held_stamp_ns, held_sent_ns = self._held
        follows = self._presses.get(subscription) == held_stamp_ns
        if not follows and (copy or sent_ns <= held_sent_ns):
            return False
        self._held = None
        return True

    def _is_copy(self, stamp_ns: int, pressed: bool) -> bool:
        if stamp_ns == 0:  # not every middleware reports when a message was sent
            return False
        if (stamp_ns, pressed) in self._seen:
            return True
        self._seen[stamp_ns, pressed] = None
        if len(self._seen) > KEPT_COPIES:
            del self._seen[next(iter(self._seen))]
        return False


@dataclass
class _Relied:
    name: str
    missing: int = 0


class EstopWatch:
    """Remembers the publishers of the e-stop since arming, and notices their loss."""

    def __init__(self) -> None:
        self._relied: dict[Key, _Relied] = {}

    def rely_on(self, publishers: Iterable[Endpoint], *, alone: bool) -> None:
        """Rely on these publishers from now on; with ``alone``, no longer on earlier ones."""
        if alone:
            self._relied = {}
        for one in publishers:
            self._relied.setdefault(one.key, _Relied(one.full_name))

    def lost(self, publishers: Iterable[Endpoint]) -> str:
        """Return the names of those that have disappeared, '' for none; call this at each poll."""
        present = {one.key: one.full_name for one in publishers}
        for key, relied in self._relied.items():
            relied.missing = 0 if key in present else relied.missing + 1
            relied.name = present.get(key, relied.name)  # known later than the endpoint
        return ' and '.join(
            sorted({one.name for one in self._relied.values() if one.missing >= MIN_MISSING})
        )
