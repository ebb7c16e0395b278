"""Counts published messages of a topic that were not received; knows no ROS."""

from collections.abc import Hashable

# A larger gap is another publisher's count, not a loss.
MAX_LOST = 1000


class MessageCount:
    """
    Follows the sequence numbers that a publisher gives its messages.

    An overflowing queue of the middleware drops the oldest messages silently; only these numbers
    reveal it.

    :ivar known: whether the middleware provides sequence numbers.
    """

    def __init__(self) -> None:
        self.known = False
        self._last: int | None = None
        self._publishers: Hashable = None
        self._alone = True

    def missing(self, sequence: int | None) -> int:
        """
        Count one message; return how many before it were lost.

        :param sequence: the publisher's sequence number, None where the middleware has none.
        """
        last, self._last = self._last, sequence
        self.known = sequence is not None
        if last is None or sequence is None or not self._alone:
            return 0
        if sequence <= last:  # a second publisher that the graph does not show yet
            self._alone = False
            return 0
        missing = sequence - last - 1
        return missing if missing <= MAX_LOST else 0

    def published_by(self, publishers: Hashable, count: int) -> bool:
        """
        Set who publishes; return whether that has changed.

        Messages do not name their publisher, so with more than one nothing can be counted.

        :param publishers: identifies them.
        """
        changed = publishers != self._publishers
        if changed:
            self._publishers, self._last = publishers, None
        self._alone = count <= 1
        return changed
