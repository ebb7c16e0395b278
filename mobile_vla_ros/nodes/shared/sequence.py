"""Counts the messages of a topic that were published and never came."""

from collections.abc import Hashable

# More than this missing at once is another publisher's count, not a loss.
MOST_LOST = 1000


class MessageCount:
    """
    Follows the count that a publisher gives its messages. Knows no ROS.

    A queue of the middleware that overflows loses the oldest messages without a word; only this
    count tells.
    """

    def __init__(self):
        self.told = False  # whether the middleware tells the count at all
        self._last: int | None = None
        self._publishers: Hashable = None
        self._alone = True

    def missing(self, sequence: int | None) -> int:
        """
        Note one message; return how many before it never came.

        :param sequence: the publisher's count, None where the middleware does not tell it.
        """
        last, self._last = self._last, sequence
        self.told = sequence is not None
        if last is None or sequence is None or not self._alone:
            return 0
        if sequence <= last:  # a second publisher, before anybody has noted it
            self._alone = False
            return 0
        missing = sequence - last - 1
        return missing if missing <= MOST_LOST else 0

    def published_by(self, publishers: Hashable, count: int) -> bool:
        """
        Note who publishes; say whether that has changed.

        :param publishers: what tells them apart. No message says which of several publishers
            sent it: with more than one, nothing can be counted.
        """
        changed = publishers != self._publishers
        if changed:
            self._publishers, self._last = publishers, None
        self._alone = count <= 1
        return changed
