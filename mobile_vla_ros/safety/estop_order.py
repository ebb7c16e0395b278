"""Which messages of the e-stop count, when each is received on several subscriptions."""

KEPT_COPIES = 4096


class EstopOrder:
    """
    Lets every press count, and no release that was sent before the press.

    On one subscription messages come in the order in which they were sent, whatever the clocks
    are; between subscriptions that order is only estimated. So the estimate may refuse a release,
    and never a press.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, bool], None] = {}  # the oldest first
        self._presses: dict[int, int] = {}  # stamp of the newest press, by subscription
        self._held: tuple[int, int] | None = None  # its stamp, and the estimate for it

    def counts(self, pressed: bool, subscription: int, stamp_ns: int, sent_ns: int) -> bool:
        """
        Take the next message of a subscription; return whether it counts.

        A press counts unless it is a copy. A release counts if it follows the held press on the
        same subscription, or is no copy and seems to be sent after it.

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
