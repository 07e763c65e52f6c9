"""Frames on the sockets between parent, template and children: a length, then one msgpack message."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from treadle.model.wire import Finished, LoadFailed, Ready, Work, encode

LENGTH = struct.Struct("<I")
ORDER = struct.Struct("<cI")  # parent -> template: FORK (with a socket) or KILL, and the child's number
FORK = b"F"
KILL = b"K"


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """Template -> parent: the child with this number is this process."""

    number: int
    pid: int


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """Template -> parent: a child has ended. `status` is the exit code, or minus the signal number."""

    number: int
    status: int


FromTemplate = Forked | Gone | LoadFailed
FromChild = Ready | Finished | LoadFailed

decode_from_template = msgspec.msgpack.Decoder(FromTemplate).decode
decode_from_child = msgspec.msgpack.Decoder(FromChild).decode
decode_for_child = msgspec.msgpack.Decoder(Work).decode


def pack(message: msgspec.Struct) -> bytes:
    body = encode(message)
    return LENGTH.pack(len(body)) + body


class Frames:
    """Puts frames together again from the pieces that a socket gives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield each frame that is complete with this piece."""
        self._buffer += piece
        while len(self._buffer) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            frame = bytes(memoryview(self._buffer)[LENGTH.size : end])
            del self._buffer[:end]
            yield frame
