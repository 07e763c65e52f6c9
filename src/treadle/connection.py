"""One HTTP/1.1 connection over a socket (RFC 9112): what the client asks of it, and no more."""

from __future__ import annotations

import functools
import re
import select
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import ssl

BLOCK = 64 * 1024  # bytes read or written at once
MAX_HEAD = 64 * 1024  # bytes of status line and headers
MAX_LINE = 4096  # bytes of a line within a chunked body
MAX_TRAILER = 16  # lines after a chunked body
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: .*)?", re.DOTALL)
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
DECIMAL = re.compile(rb"[0-9]{1,18}")
HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,15}")
NO_BODY = {204, 304}


class BadAnswer(ConnectionError):
    """What came is not an answer in HTTP, or it was cut off."""


class Connection:
    """An open connection for one request at a time: `send`, then `answer`, then the answer's body to its end.

    `timeout` is in seconds, for connecting and then for each wait for the other side. `through`: dial this address,
    from which there is a way to the other.

    Raises:
        OSError: it cannot be opened; so do all methods when it breaks, TimeoutError after `timeout`.
    """

    def __init__(
        self, host: str, port: int, *, tls: bool, timeout: float, through: tuple[str, int] | None = None
    ) -> None:
        opened = socket.create_connection(through or (host, port), timeout)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = _tls().wrap_socket(opened, server_hostname=host) if tls else opened
        except BaseException:
            opened.close()
            raise
        self._timeout = timeout
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._rest = b""  # what was received and not yet read

    def close(self) -> None:
        self._socket.close()

    def wait_at_most(self, timeout: float) -> None:
        """Another timeout from now on."""
        if timeout != self._timeout:
            self._timeout = timeout
            self._socket.settimeout(timeout)

    def is_quiet(self) -> bool:
        """Whether the idle connection is still open and has nothing to say that nobody asked for."""
        return not self._rest and not self._poll.poll(0)

    def send(self, head: bytes, body: bytes | BinaryIO, size: int) -> None:
        """Send a request: its head, and `size` bytes of body.

        A body of bytes goes out together with the head: a small request is one packet, and wakes the server once.
        """
        if isinstance(body, bytes):
            self._socket.sendall(head + body)
            return
        self._socket.sendall(head)
        while size:
            block = body.read(min(BLOCK, size))
            if not block:
                raise BadAnswer("the file became shorter while it was sent")
            self._socket.sendall(block)
            size -= len(block)

    def answer(self, *, to_head: bool = False) -> Answer:
        """Wait for the answer, skipping interim ones. One to a HEAD request has no body, whatever it says."""
        while True:
            answer = Answer(self, self._head(), to_head=to_head)
            if answer.status >= 200:
                return answer
            if answer.status == 101:
                raise BadAnswer("it switched to a protocol that nobody asked for")

    def _head(self) -> bytes:
        data = self._rest
        while (end := data.find(b"\r\n\r\n")) < 0:
            if data[:7] != b"HTTP/1."[: len(data)]:
                raise BadAnswer(f"what came is not HTTP/1: {data[:40]!r}")
            if len(data) > MAX_HEAD:
                raise BadAnswer(f"the head of its answer is over {MAX_HEAD} bytes")
            more = self._socket.recv(BLOCK)
            if not more:
                raise BadAnswer("it closed the connection in the middle of an answer" if data else "it hung up")
            data += more
        self._rest = data[end + 4 :]
        return data[:end]

    def some(self, limit: int) -> bytes:
        """Up to `limit` bytes as soon as there are any; none at the end of the connection."""
        if not self._rest:
            return self._socket.recv(min(BLOCK, limit))
        block, self._rest = self._rest[:limit], self._rest[limit:]
        return block

    def line(self) -> bytes:
        """The next line without its end."""
        while (end := self._rest.find(b"\r\n")) < 0:
            if len(self._rest) > MAX_LINE:
                raise BadAnswer(f"a line of its answer is over {MAX_LINE} bytes")
            more = self._socket.recv(BLOCK)
            if not more:
                raise BadAnswer("it closed the connection in the middle of an answer")
            self._rest += more
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line


class Answer:
    """Status and headers (names in lower case) of an answer, and its body, which is read once."""

    def __init__(self, connection: Connection, head: bytes, *, to_head: bool) -> None:
        first, *lines = head.split(b"\r\n")
        found = STATUS_LINE.fullmatch(first)
        if found is None:
            raise BadAnswer(f"what came is not HTTP/1: {first[:40]!r}")
        self.status = int(found[2])
        self.headers = _headers(lines)
        self.connection = connection
        self._chunked = False
        self._left = self._length(empty=to_head or self.status in NO_BODY)
        self._closes = found[1] == b"0" or b"close" in _words(self.headers.get(b"connection", b""))
        self._whole = False

    def _length(self, *, empty: bool) -> int | None:
        """How many bytes of body follow; None when chunks or the connection's end will tell."""
        length, coding = self.headers.get(b"content-length"), self.headers.get(b"transfer-encoding")
        if empty:
            return 0
        if coding is not None:
            if coding.lower() != b"chunked" or length is not None:
                raise BadAnswer(f"its answer has the transfer encoding {coding[:40]!r}, which is not read here")
            self._chunked = True
            return None
        if length is not None and not DECIMAL.fullmatch(length):
            raise BadAnswer(f"its answer has the content length {length[:40]!r}")
        return None if length is None else int(length)

    @property
    def leaves_open(self) -> bool:
        """Whether the connection can take another request: the body was read to its end, and it stays open."""
        return self._whole and not self._closes

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """The body in the pieces it comes in.

        Raises:
            BadAnswer: it is cut off, or not what its headers say.
        """
        if self._chunked:
            yield from self._chunks()
        elif self._left is None:
            self._closes = True
            while block := self.connection.some(BLOCK):
                yield block
        else:
            yield from self._exactly(self._left)
        self._whole = True

    def lines(self) -> Iterator[bytes]:
        """The body line by line, each as soon as it is there."""
        rest = b""
        for block in self.blocks():
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left:
            block = self.connection.some(left)
            if not block:
                raise BadAnswer(f"it closed the connection {left} bytes before the end of an answer")
            left -= len(block)
            yield block

    def _chunks(self) -> Iterator[bytes]:
        line = self.connection.line
        while size := _chunk_size(line()):
            yield from self._exactly(size)
            if line():
                raise BadAnswer("a chunk of its answer is longer than announced")
        for _ in range(MAX_TRAILER):
            if not line():
                return
        raise BadAnswer(f"the trailer of its answer has over {MAX_TRAILER} lines")


def _headers(lines: list[bytes]) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not NAME.fullmatch(name):
            raise BadAnswer(f"its answer has the header line {line[:40]!r}")
        name, value = name.lower(), value.strip(b" \t")
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _words(value: bytes) -> list[bytes]:
    return [word.strip(b" \t") for word in value.lower().split(b",")]


def _chunk_size(line: bytes) -> int:
    size = line.partition(b";")[0].rstrip(b" \t")
    if not HEXADECIMAL.fullmatch(size):
        raise BadAnswer(f"its answer has the chunk size {size[:40]!r}")
    return int(size, 16)


@functools.cache
def _tls() -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - costs 2 MB and only https needs it

    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
