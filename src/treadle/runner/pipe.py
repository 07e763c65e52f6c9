"""The parent's end of a socket to the template or a child: frames in and out on the event loop, never blocking.

Not an asyncio transport, because a dead child's last words must be readable at the moment its death is told.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from treadle.runner.frames import Frames

PIECE = 64 * 1024  # more would have the allocator map and unmap memory for each read


class Pipe:
    """A socket, what is still to be written to it, and whom to tell of frames and of its end."""

    def __init__(
        self, sock: socket.socket, on_frames: Callable[[list[bytearray]], None], on_end: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_frames = on_frames
        self._on_end = on_end
        self._frames = Frames()
        self._unsent = bytearray()
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    def send(self, frame: bytes) -> None:
        """Write now what the socket takes and the rest when it takes more. Nothing happens after the end."""
        if self._unsent or not self._open:
            self._unsent += frame
            return
        sent = self._write(memoryview(frame))
        if sent < len(frame):
            self._unsent += memoryview(frame)[sent:]
            self._loop.add_writer(self._sock, self._write_on)

    def drain(self) -> list[bytearray]:
        """All frames that have arrived, without waiting for the event loop."""
        frames = []
        while self._open and (piece := self._read()):
            frames += self._frames.feed(piece)
        return frames

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    def _readable(self) -> None:
        piece = self._read()
        if piece and (frames := self._frames.feed(piece)):
            self._on_frames(frames)

    def _read(self) -> bytes:
        """One piece; empty when there is none now, or never again."""
        try:
            piece = self._sock.recv(PIECE)
        except BlockingIOError:
            return b""
        except OSError:
            piece = b""
        if not piece:
            self.close()
            self._on_end()
        return piece

    def _write(self, data: memoryview | bytearray) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:  # the reader sees the end and tells
            return len(data)

    def _write_on(self) -> None:
        del self._unsent[: self._write(self._unsent)]
        if not self._unsent:
            self._loop.remove_writer(self._sock)
