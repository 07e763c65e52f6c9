"""How much of what a runner sends is kept: a last bound, for runners keep to a narrower one by themselves."""

from __future__ import annotations

from treadle.model.log import KEPT_BYTES, KEPT_LINES, Extent

SPARE = 1.25  # for remarks, and for what storing adds to the bytes of a line


def after(before: Extent, count: int, size: int) -> Extent:
    """What an attempt or a container has printed once these lines are added."""
    return Extent(before.lines + count, before.size + size)


def fits(upto: Extent) -> bool:
    """Whether an attempt that has printed so much may still be kept."""
    return upto.lines <= KEPT_LINES * SPARE and upto.size <= KEPT_BYTES * SPARE


def past(upto: Extent) -> Extent | None:
    """What a container that has said so much loses of its first words; None: nothing yet."""
    before = Extent(upto.lines - KEPT_LINES, upto.size - KEPT_BYTES)
    return before if before.lines > 0 or before.size > 0 else None
