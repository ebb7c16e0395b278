"""Which publishers of the e-stop a drive relies on."""

from collections.abc import Iterable
from dataclasses import dataclass

from mobile_vla_ros.safety.preflight import Endpoint, Key

# Polls in a row in which a publisher must be missing: discovery loses endpoints for a moment.
MIN_MISSING = 2


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
