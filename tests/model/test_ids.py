"""Time-ordered ids and written times."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from treadle.model.ids import iso, uuid7, uuid7s

TIMES = st.floats(0, 2**47 / 1000)
BYTES = st.binary(min_size=10, max_size=10)


@given(TIMES, BYTES)
def test_an_id_is_a_uuid_of_version_7(now: float, random: bytes) -> None:
    """Version and variant bits are where RFC 9562 wants them, the milliseconds come first."""
    found = uuid.UUID(uuid7(now, random))
    assert str(found) == uuid7(now, random)
    assert found.version == 7
    assert found.variant == uuid.RFC_4122
    assert int.from_bytes(found.bytes[:6], "big") == int(now * 1000)


@given(TIMES, TIMES, BYTES, BYTES)
def test_ids_sort_by_time(one: float, two: float, random: bytes, other: bytes) -> None:
    """As text too: a later millisecond is a greater id."""
    first, second = sorted((one, two))
    if int(first * 1000) < int(second * 1000):
        assert uuid7(first, random) < uuid7(second, other)


@given(BYTES, BYTES)
def test_ids_of_one_millisecond_differ_by_chance(random: bytes, other: bytes) -> None:
    """74 of the bits are random."""
    mask = bytes([0x0F, 0xFF, 0x3F] + [0xFF] * 7)
    same = all(a & m == b & m for a, b, m in zip(random, other, mask, strict=True))
    assert (uuid7(1.0, random) == uuid7(1.0, other)) == same


@given(TIMES, st.lists(BYTES, max_size=5))
def test_many_ids_are_what_each_would_be_alone(now: float, random: list[bytes]) -> None:
    """Ten bytes of chance each, in order."""
    assert uuid7s(now, b"".join(random)) == [uuid7(now, one) for one in random]


def test_times_are_written_in_utc() -> None:
    """With microseconds and a Z, as Beam writes them."""
    assert iso(0.0) == "1970-01-01T00:00:00.000000Z"
    assert iso(1_770_112_809.120441) == "2026-02-03T10:00:09.120441Z"
