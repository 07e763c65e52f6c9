"""Cutting what a child prints into lines: whole, in order, each under the right stamp."""

from __future__ import annotations

import random

import pytest

from treadle.model.log import MAX_LINE
from treadle.runner.lines import STAMP, Splitter, text_of

MARK = b"\0" + b"0123456789abcdef"
Lot = tuple[bytes, bytes]


def stamp(text: bytes) -> bytes:
    return MARK + text + b"\n"


def opened() -> Splitter:
    splitter = Splitter()
    assert splitter.feed(MARK) == []
    return splitter


def lines(lots: list[Lot]) -> list[Lot]:
    """Each line by itself, with its stamp."""
    return [(under, line) for under, text in lots for line in text.split(b"\n")[:-1]]


def test_a_line_comes_when_it_is_whole() -> None:
    """However it is cut; what has no end comes at the end."""
    splitter = opened()
    assert splitter.feed(b"on") == []
    assert splitter.feed(b"e\ntwo\nthr") == [(b"", b"one\ntwo\n")]
    assert splitter.unfinished
    assert splitter.end() == [(b"", b"thr\n")]
    assert splitter.end() == []


def test_lines_are_under_the_stamp_before_them() -> None:
    """A stamp in the middle of a line ends it."""
    found = opened().feed(b"none\n" + stamp(b"t 1") + b"a\nb\nunfinished" + stamp(b"u 1") + b"c\n")
    assert lines(found) == [(b"", b"none"), (b"t 1", b"a"), (b"t 1", b"b"), (b"t 1", b"unfinished"), (b"u 1", b"c")]


def test_it_does_not_matter_where_reads_end() -> None:
    """Pieces of any size give the same lines: also those that cut characters, marks and stamps."""
    whole = MARK + "früh\n".encode() + stamp(b"t 1") + "ä€𝄞\n".encode() * 50 + b"\xff\x00\xfe\n\n" + stamp(b"u 2") + b"end"
    expected = None
    for seed in range(300):
        rng, splitter, found, at = random.Random(seed), Splitter(), [], 0
        while at < len(whole):
            size = len(whole) if seed == 0 else rng.randint(1, 20)
            found += splitter.feed(whole[at : at + size])
            at += size
        found += splitter.end()
        expected = expected or lines(found)
        assert lines(found) == expected
    assert expected and expected[1] == (b"t 1", "ä€𝄞".encode())
    assert expected[-1] == (b"u 2", b"end")


def test_only_this_pipes_mark_is_one() -> None:
    """Text that looks like a stamp stays text."""
    forged = b"\0" + b"f" * 16 + b"other 1\n"
    assert opened().feed(stamp(b"t 1") + forged + b"x\n") == [(b"t 1", forged + b"x\n")]


def test_a_long_line_is_cut() -> None:
    """It keeps its beginning, and says how much is missing; the next one is whole. Memory does not grow with it."""
    splitter = opened()
    for _ in range(1000):
        assert splitter.feed(b"x" * 65536) == []
        assert len(splitter._rest) <= MAX_LINE + STAMP
    ((_, first), (_, second)) = splitter.feed(b"y\nnext\n")
    assert first == b"x" * MAX_LINE + " … ".encode() + b"%d bytes cut\n" % (65536 * 1000 + 1 - MAX_LINE)
    assert second == b"next\n"


def test_a_stamp_after_a_long_line_is_found() -> None:
    """Though most of the line before it was thrown away, and it comes in two pieces."""
    splitter = opened()
    splitter.feed(b"x" * 100_000)
    whole = stamp(b"t 1")
    found = splitter.feed(whole[:10]) + splitter.feed(whole[10:] + b"a\n")
    assert lines(found)[-1] == (b"t 1", b"a")
    assert len(lines(found)) == 2


def test_a_progress_bar_is_its_last_state() -> None:
    """What carriage returns have overwritten is not kept, neither in the line nor in memory."""
    splitter = opened()
    for percent in range(100_000):
        assert splitter.feed(b"\r%6d done" % percent) == []
    assert len(splitter._rest) < 50
    ((_, line),) = splitter.feed(b"\n")
    assert text_of(line[:-1]) == " 99999 done"


def test_a_progress_bar_can_be_seen_on_its_way() -> None:
    """Each state once; the end of the line is not told again if it is the state that was seen."""
    splitter = opened()
    assert splitter.progress() == []
    splitter.feed(stamp(b"t 1") + b" 10%\r")
    assert splitter.in_progress
    assert splitter.progress() == [(b"t 1", b" 10%\n")]
    assert splitter.progress() == []
    splitter.feed(b" 20%\r 30%\r")
    assert splitter.progress() == [(b"t 1", b" 30%\n")]
    assert splitter.feed(b"\n") == []
    assert splitter.feed(b"a\n") == [(b"t 1", b"a\n")]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain", "plain"),
        (b"dos\r", "dos"),
        (b"10%\r20%", "20%"),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}" * 2),
        (b"nul \x00 and \x1b[31m", "nul \x00 and \x1b[31m"),
    ],
)
def test_what_a_line_is_as_text(line: bytes, text: str) -> None:
    """Bytes that are no UTF-8 are replaced, control characters stay."""
    assert text_of(line) == text


def test_a_cut_does_not_part_a_character() -> None:
    """The line ends with a whole one."""
    text = text_of(b"x" + "€".encode() * 10_000)
    assert text.startswith("x€€") and "\N{REPLACEMENT CHARACTER}" not in text
    assert text.endswith(" bytes cut")
