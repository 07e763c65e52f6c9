"""Cuts what comes through a child's pipe into whole lines, and says which stamp each lot of them is under."""

from __future__ import annotations

from treadle.model.log import MAX_LINE
from treadle.runner.stamps import MARK

STAMP = 128  # bytes: more than a mark and a stamp have

Lot = tuple[bytes, bytes]  # a stamp without its mark (b"": none yet), and whole lines, each with its end


class Splitter:
    """Of one pipe. It holds an unfinished line; of a long one the beginning, and enough to find a stamp in it."""

    def __init__(self) -> None:
        self._mark = b""
        self._stamp = b""
        self._rest = b""
        self._left_out = 0  # bytes of the unfinished line
        self._shown = b""  # the state of a progress bar that was shown last

    def feed(self, piece: bytes) -> list[Lot]:
        """The lines that are complete with this piece."""
        data = self._rest + piece
        if not self._mark:
            self._mark, data = data[:MARK], data[MARK:]
            if len(self._mark) < MARK:
                self._rest, self._mark = self._mark, b""
                return []
        lots: list[Lot] = []
        text, *stamped = data.split(self._mark)
        for part in stamped:
            stamp, newline, after = part.partition(b"\n")
            if not newline:  # it is cut off: the next piece has its end
                self._hold(lots, text, self._mark + part)
                return lots
            self._put(lots, text if text.endswith(b"\n") or not text else text + b"\n")
            self._stamp, text = stamp, after
        self._hold(lots, text)
        return lots

    def end(self) -> list[Lot]:
        """The unfinished line, which will not be finished."""
        lots: list[Lot] = []
        if self.unfinished:
            self._put(lots, self._rest + b"\n")
            self._rest = b""
        return lots

    def progress(self) -> list[Lot]:
        """The state of an unfinished line that goes back with a carriage return, if it is another than before."""
        state = last_state(self._rest) if b"\r" in self._rest else b""
        if not state or state == self._shown:
            return []
        self._shown = state
        return [(self._stamp, state + b"\n")]

    @property
    def stamp(self) -> bytes:
        return self._stamp

    @property
    def unfinished(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._rest and self._mark)

    @property
    def in_progress(self) -> bool:
        """Whether `progress` may have something to tell."""
        return b"\r" in self._rest

    def _hold(self, lots: list[Lot], text: bytes, stamp: bytes = b"") -> None:
        whole, newline, rest = text.rpartition(b"\n")
        self._put(lots, whole + newline)
        body = rest.rstrip(b"\r")
        back = body.rfind(b"\r")
        if back > 0:  # what stood before it was overwritten
            rest, self._left_out = rest[back:], 0
        over = len(rest) - MAX_LINE - STAMP
        if over > 0:
            self._left_out += over
            rest = rest[:MAX_LINE] + rest[-STAMP:]
        self._rest = rest + stamp

    def _put(self, lots: list[Lot], text: bytes) -> None:
        if text and (self._left_out or self._shown):
            first, _, text = text.partition(b"\n")
            if self._left_out:
                lots.append((self._stamp, cut(first, self._left_out) + b"\n"))
            elif last_state(first) != self._shown:
                lots.append((self._stamp, first + b"\n"))
            self._left_out, self._shown = 0, b""
        if text:
            lots.append((self._stamp, text))


def last_state(line: bytes) -> bytes:
    """What a terminal shows in the end of a line that goes back with carriage returns."""
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1 :]


def cut(line: bytes, left_out: int = 0) -> bytes:
    """At most MAX_LINE bytes of a line, whole characters, and how much is missing."""
    end = MAX_LINE
    while end > MAX_LINE - 4 and line[end : end + 1] and 0x80 <= line[end] < 0xC0:
        end -= 1
    return line[:end] + b" \xe2\x80\xa6 %d bytes cut" % (len(line) + left_out - end)


def text_of(line: bytes) -> str:
    """A line as it is kept; bytes that are not UTF-8 are replaced."""
    if b"\r" in line:
        line = last_state(line)
    if len(line) > MAX_LINE + STAMP:
        line = cut(line)
    return line.decode("utf-8", "replace")
