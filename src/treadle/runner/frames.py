"""Frames on the sockets between parent, template and children: a length, then one msgpack message."""

from __future__ import annotations

import struct

import msgspec

from treadle.model.wire import MAX_FRAME, Finished, LoadFailed, Ready, Work, encode

LENGTH = struct.Struct("<I")
WORK = struct.Struct("<II")  # parent -> child, before each Work: its length, and the number of its token
ORDER = struct.Struct("<cI")  # parent -> template, and on to the checkpoint: what to do, and the child's number
FORK = b"F"  # with the child's files: fork it from the template
LOAD = b"L"  # the same, and it is to be the checkpoint
COPY = b"C"  # with the child's files: fork it from the checkpoint
KILL = b"K"
BORN = struct.Struct("<II")  # checkpoint -> template: the number of a child, and its pid


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """Template -> parent: the child with this number is this process.

    `pid` is 0 where it would be a number of another pid namespace; there no child outlives the template.
    """

    number: int
    pid: int


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """Template -> parent: a child has ended. `status` is the exit code, or minus the signal number."""

    number: int
    status: int


class NotForked(msgspec.Struct, frozen=True, tag="not_forked"):
    """Template -> parent: the checkpoint had ended before it forked the child with this number."""

    number: int


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """Checkpoint -> parent: the handler is loaded. With a `trouble` it cannot be forked, and is a worker."""

    trouble: str


FromTemplate = Forked | Gone | NotForked | LoadFailed
FromChild = Ready | Finished | LoadFailed | Loaded

decode_from_template = msgspec.msgpack.Decoder(FromTemplate).decode
decode_from_child = msgspec.msgpack.Decoder(FromChild).decode
decode_for_child = msgspec.msgpack.Decoder(Work).decode


def pack(message: msgspec.Struct) -> bytes:
    body = encode(message)
    return LENGTH.pack(len(body)) + body


def pack_work(number: int, work: Work) -> bytes:
    body = encode(work)
    return WORK.pack(len(body), number) + body


class Frames:
    """Puts frames together again from the pieces that a socket gives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> list[bytearray]:
        """The frames that are complete with this piece.

        Raises:
            ValueError: one says to be larger than any is; user code has written where it should not.
        """
        buffer = self._buffer
        buffer += piece
        frames = []
        start = 0
        while len(buffer) >= start + LENGTH.size:
            (size,) = LENGTH.unpack_from(buffer, start)
            if size > MAX_FRAME:
                raise ValueError(f"a child has announced {size} bytes; a frame has {MAX_FRAME} at most")
            end = start + LENGTH.size + size
            if len(buffer) < end:
                break
            frames.append(buffer[start + LENGTH.size : end])
            start = end
        del buffer[:start]
        return frames
