"""`Verdict`: what happened to a port, in one of six kinds and in words."""

from __future__ import annotations

from dataclasses import dataclass

#: kind -> the words that always name it
KINDS = {
    "exact": "Exact",
    "silent": "Silent wrong layout",
    "crash": "Crash",
    "values": "Wrong values",
    "code": "Right leaves, wrong code",
    "unsure": "Cannot tell",
}


@dataclass(frozen=True)
class Verdict:
    """The outcome of one port.

    Attributes:
        kind: a key of `KINDS`.
        text: what happened and by how much, in sentences.
        fix: the line that puts it right, tried before it is shown; "" if none is needed.
        detail: the message of Flax itself, if there is one.
    """

    kind: str
    text: str
    fix: str = ""
    detail: str = ""

    @property
    def title(self) -> str:
        """The words that name this kind."""
        return KINDS[self.kind]


def percent(part: int, whole: int) -> str:
    """`part` of `whole` as a percentage that never rounds to all or nothing by mistake.

    >>> percent(34, 36), percent(999, 1000), percent(1, 100000)
    ('94 %', '99.9 %', 'under 0.1 %')
    """
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "under 0.1 %"
    if 99 <= share < 100:
        return f"{min(share, 99.9):.1f} %"
    return f"{share:.0f} %" if share >= 1 or share == 0 else f"{share:.1f} %"
