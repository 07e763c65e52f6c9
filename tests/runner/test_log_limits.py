"""How much is kept of what an attempt prints, in held-still time."""

from __future__ import annotations

import asyncio

import pytest

from treadle.model.log import KEPT_BYTES, KEPT_LINES, LINES_AT_ONCE, LINES_PER_SECOND, MAX_LINE, NOTE, Line, Stream
from treadle.model.wire import AttemptRef, Lines
from treadle.runner import printed
from treadle.runner.printed import LAST_LINES, Log
from treadle.runner.quota import BYTES_AT_ONCE, BYTES_PER_SECOND, Bucket, Quota

OUT = Stream.STDOUT


def flow() -> Bucket:
    return Bucket(BYTES_AT_ONCE, BYTES_PER_SECOND, 0.0)


def numbered(first: int, count: int) -> bytes:
    return b"".join(b"%d\n" % n for n in range(first, first + count))


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def test_lines_keep_their_order_stream_and_time() -> None:
    """As they were added."""
    log = Log(Quota(flow(), 0.0))
    log.add(b"a\nb\n", OUT, 100.0, 0.0)
    log.add(b"c\n", Stream.STDERR, 101.0, 1.0)
    log.end(102.0)
    assert log.take() == [Line(100.0, OUT, "a"), Line(100.0, OUT, "b"), Line(101.0, Stream.STDERR, "c")]
    assert log.take() == []


def test_too_many_at_once_are_left_out_and_counted() -> None:
    """Until a second's worth may be kept again; a remark stands where they are missing."""
    log = Log(Quota(flow(), 0.0))
    most = LINES_AT_ONCE
    log.add(numbered(0, most + 700), OUT, 0.0, 0.0)
    log.add(numbered(9000, 5), OUT, 0.0, 0.5)
    log.add(numbered(9500, 3), OUT, 0.0, 1.0)
    log.end(1.0)
    told = texts(log.take())
    assert told[:most] == [str(n) for n in range(most)]
    assert told[most:] == ["705 lines left out: more than 1000 lines or 1 MiB a second", "9500", "9501", "9502"]


def test_the_last_lines_of_an_attempt_are_kept() -> None:
    """However much was left out before them."""
    log = Log(Quota(flow(), 0.0))
    for n in range(100):
        log.add(numbered(n * 20_000, 20_000), OUT, 0.0, 0.0)
    log.end(0.0)
    told = texts(log.take())
    assert told[-1] == "1999999"
    assert told[-LAST_LINES - 1] == f"{2_000_000 - LINES_AT_ONCE - LAST_LINES} lines left out: more than 1000 lines or 1 MiB a second"
    assert len(told) == LINES_AT_ONCE + 1 + LAST_LINES


def test_an_attempt_is_not_kept_beyond_its_limit() -> None:
    """Slow as it may print: lines and bytes are bounded, and the remark says so."""
    for line in (b"x\n", b"y" * 10_000 + b"\n"):
        log, kept = Log(Quota(flow(), 0.0)), []
        for second in range(60):
            log.add(line * int(LINES_PER_SECOND / 2), OUT, 0.0, float(second))
            kept += log.take()
        log.end(60.0)
        kept += log.take()
        assert len(kept) <= KEPT_LINES
        assert sum(len(one.text) for one in kept) <= KEPT_BYTES
        assert len(kept) > KEPT_LINES * 0.8 or sum(len(one.text) for one in kept) > KEPT_BYTES * 0.8
        (remark,) = (one.text for one in kept if one.stream is Stream.NOTES)
        assert remark.endswith("lines left out: an attempt's limit")


def test_a_line_never_exceeds_what_the_server_takes() -> None:
    """Whichever way it comes: whole, cut by the splitter, or among the last ones."""
    log = Log(Quota(flow(), 0.0))
    log.add(b"x" * 1_000_000 + b"\n", OUT, 0.0, 0.0)
    log.add(b"\xff" * 1_000_000 + b"\n", OUT, 0.0, 0.0)
    log.add(numbered(0, 20_000) + b"z" * 50_000 + b"\n", OUT, 0.0, 0.0)
    log.end(0.0)
    assert max(len(one.text) for one in log.take()) <= MAX_LINE + NOTE


def test_a_containers_attempts_share_its_flow() -> None:
    """Many attempts, each within its own limits, do not write without end; what comes after a while is kept again."""
    shared, kept = flow(), 0
    for _ in range(50):
        log = Log(Quota(shared, 0.0))
        log.add(b"x" * 999 + b"\n" * 1, OUT, 0.0, 0.0)
        log.add((b"x" * 999 + b"\n") * 800, OUT, 0.0, 0.0)
        log.end(0.0)
        kept += sum(len(one.text) for one in log.take())
    assert kept < BYTES_AT_ONCE + 50 * 130_000
    later = Log(Quota(shared, 2.0))
    later.add(b"heard\n", OUT, 0.0, 2.0)
    assert texts(later.take()) == ["heard"]


def test_a_containers_own_words_have_no_end() -> None:
    """Only their flow is bounded: the store keeps the last ones."""
    log, kept = Log(Quota(flow(), 0.0, endless=True)), 0
    for second in range(100):
        log.add(numbered(0, 500), OUT, 0.0, float(second))
        kept += len(log.take())
    assert kept == 50_000


def test_what_a_server_misses_for_too_long_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are held while there is none, up to a limit; the next one is told them, and how many are missing."""
    monkeypatch.setattr(printed, "HELD_BYTES", 1000)
    ref = AttemptRef("t", 1)

    async def away() -> tuple[list[Lines], list[Lines]]:
        logs = printed.Printed(lambda _lines: False)
        for _ in range(3):
            logs.add(ref, b"x" * 700 + b"\n", OUT)
            logs.end(ref)
        return logs.greet(), logs.greet()

    first, second = asyncio.run(away())
    assert [(m.ref, len(m.lines[0].text)) for m in first[:2]] == [(ref, 700), (ref, 700)]
    assert texts(first[2].lines) == ["1 line left out: there was no server for too long"]
    assert second == []
