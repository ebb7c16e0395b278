"""Which publishers of the e-stop a drive relies on."""

from collections.abc import Iterable

from mobile_vla_ros.safety.preflight import Endpoint

# Polls in a row in which a publisher must be missing: discovery loses endpoints for a moment.
MIN_MISSING = 2


class EstopWatch:
    """Remembers the publishers of the e-stop from the time of arming, and notices their loss."""

    def __init__(self) -> None:
        self._missing: dict[Endpoint, int] = {}

    def rely_on(self, publishers: Iterable[Endpoint], *, alone: bool) -> None:
        """Rely on these publishers from now on; with ``alone``, no longer on earlier ones."""
        if alone:
            self._missing = {}
        for one in publishers:
            self._missing.setdefault(one, 0)

    def lost(self, publishers: Iterable[Endpoint]) -> str:
        """Return the names of those that have disappeared, '' for none; call this at each poll."""
        present = set(publishers)
        for one in self._missing:
            self._missing[one] = 0 if one in present else self._missing[one] + 1
        return ' and '.join(
            sorted({one.full_name for one, n in self._missing.items() if n >= MIN_MISSING})
        )
