"""Time-ordered ids and how times are written."""

from __future__ import annotations

from datetime import UTC, datetime

_VARIANT = dict(zip("0123456789abcdef", 4 * "89ab", strict=True))  # a digit with its upper two bits set to 10


def uuid7(now: float, random: bytes) -> str:
    """A UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then 74 bits of 10 random bytes.

    Time order keeps inserts at the end of the index; random ids make them several times dearer.
    """
    return uuid7s(now, random)[0]


def uuid7s(now: float, random: bytes) -> list[str]:
    """As many ids of one time as `random` has tens of bytes."""
    time, noise = f"{int(now * 1000):012x}", random.hex()
    head = f"{time[:8]}-{time[8:]}-7"
    return [
        f"{head}{noise[at + 1 : at + 4]}-{_VARIANT[noise[at + 4]]}{noise[at + 5 : at + 8]}-{noise[at + 8 : at + 20]}"
        for at in range(0, len(noise), 20)
    ]


def iso(when: float) -> str:
    """RFC 3339 in UTC with microseconds, as Beam writes times."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
