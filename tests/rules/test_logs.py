"""How much of what is printed is kept."""

from __future__ import annotations

from treadle.model.log import KEPT_BYTES, KEPT_LINES, Extent
from treadle.rules import logs


def test_lines_and_bytes_add_up() -> None:
    """What was kept before and what comes now."""
    assert logs.after(Extent(3, 40), 2, 5) == Extent(5, 45)


def test_an_attempt_has_room_for_what_a_runner_may_send() -> None:
    """And for a quarter more, but no longer, whether by lines or by bytes."""
    assert logs.fits(Extent(KEPT_LINES, KEPT_BYTES))
    assert not logs.fits(Extent(KEPT_LINES * 2, 0))
    assert not logs.fits(Extent(0, KEPT_BYTES * 2))


def test_a_container_keeps_its_last_words() -> None:
    """Nothing is lost until the limits are passed; then as much as they are passed by."""
    assert logs.past(Extent(KEPT_LINES, KEPT_BYTES)) is None
    assert logs.past(Extent(KEPT_LINES + 5, 0)) == Extent(5, -KEPT_BYTES)
    assert logs.past(Extent(0, KEPT_BYTES + 7)) == Extent(-KEPT_LINES, 7)
