"""A child's own streams say whose each line is."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from treadle.model.wire import AttemptRef
from treadle.runner.lines import Splitter
from treadle.runner.stamps import Stamps, _stream

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def read(pipe: Pipe) -> bytes:
    os.set_blocking(pipe[0], False)
    try:
        return os.read(pipe[0], 1 << 20)
    except BlockingIOError:
        return b""


def test_a_stamp_is_written_once_for_an_attempt(pipe: Pipe) -> None:
    """Before its first line, and not again until the attempt changes."""
    stamps = Stamps()
    stream = _stream(pipe[1], stamps)
    print("early", file=stream)
    stamps.ref = AttemptRef("t", 1)
    print("a", file=stream)
    print("b", file=stream)
    stamps.ref = AttemptRef("t", 2)
    print("c", file=stream)
    stream.detach().detach()
    mark = stamps.mark
    assert read(pipe) == b"early\n" + mark + b"t 1\na\nb\n" + mark + b"t 2\nc\n"


def test_an_attempt_that_prints_nothing_writes_nothing(pipe: Pipe) -> None:
    """Not even when its streams are flushed."""
    stamps = Stamps()
    stream = _stream(pipe[1], stamps)
    stamps.ref = AttemptRef("t", 1)
    stream.flush()
    assert read(pipe) == b""
    stream.detach().detach()


def test_what_does_not_fit_is_written_on(pipe: Pipe) -> None:
    """A pipe that is nearly full takes a part of a stamp; the rest follows, and nothing is lost or doubled."""
    stamps = Stamps()
    stream = _stream(pipe[1], stamps)
    expected, got, splitter = [], [], Splitter()
    splitter.feed(stamps.mark)
    os.set_blocking(pipe[1], False)
    for n in range(3000):
        stamps.ref = AttemptRef(f"task-{n}", 1)
        line = f"{n} " + "x" * (n % 97)
        expected.append((f"task-{n} 1".encode(), line.encode()))
        print(line, file=stream)
        if n % 300 == 299:
            got += [(under, one) for under, text in splitter.feed(read(pipe)) for one in text.splitlines()]
    assert got == expected
    stream.detach().detach()
