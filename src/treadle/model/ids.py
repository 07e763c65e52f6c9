"""Time-ordered ids and how times are written."""

from __future__ import annotations

from datetime import UTC, datetime


def uuid7(now: float, random: bytes) -> str:
    """A UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then 10 random bytes.

    Time order keeps inserts at the end of the index; random ids make them several times dearer.
    """
    head = int(now * 1000).to_bytes(6, "big")
    tail = bytes([0x70 | random[0] & 0x0F, random[1], 0x80 | random[2] & 0x3F]) + random[3:10]
    text = (head + tail).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def iso(when: float) -> str:
    """RFC 3339 in UTC with microseconds, as Beam writes times."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
