"""The list of episodes that `mobile_vla episodes view --serve` begins with."""

from collections.abc import Sequence
from dataclasses import dataclass

from mobile_vla_ros.report.pages import page


@dataclass(frozen=True)
class Line:
    """
    An episode in the list.

    :param address: of its page; instruction: of an unreadable file, what is wrong with it.
    :param edits: number of edits that stand.
    """

    address: str
    name: str
    instruction: str
    outcome: str
    verdict: str
    seconds: float
    edits: int


def list_page(title: str, subtitle: str, lines: Sequence[Line], notes: Sequence[str] = ()) -> str:
    """Return the page; ``notes``: sentences at its top."""
    return page.render(
        'episode_list.html', title=title, subtitle=subtitle, lines=lines, notes=notes
    )
