"""HTTP connections with limits on the time and the bytes of a request, and refusals in our own shape."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from websockets.exceptions import InvalidHeaderFormat
from websockets.headers import parse_connection, parse_subprotocol

from treadle.model.errors import InvalidInput, TreadleError
from treadle.server.asgi import error_body
from treadle.server.lane import LaneHttp

HEAD_SECONDS = 30.0  # for the whole head of a request; for the first one, from the connection's beginning
MAX_HEAD = 64 * 1024  # bytes
MAX_HEADERS, MAX_HEADER = 100, 8000  # headers of a WebSocket handshake, and bytes of one, or of its URL
KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
LINGER_SECONDS = 1.0  # for a client that still sends to read why it should not: closed at once, it would see a reset
WINDOW_SECONDS = 30.0  # of a body; each but the last must bring …
WINDOW_BYTES = 7680  # … so much, unless it is we who do not read


class TimedOut(TreadleError):
    """A request came too slowly (HTTP 408)."""

    status = 408
    code = "timed_out"


class HeadTooLarge(TreadleError):
    """The head of a request is over its limit (HTTP 431)."""

    status = 431
    code = "head_too_large"


class PatientHttp(LaneHttp):
    """One timer a connection at most, and none for a request that comes in one piece."""

    _clock: asyncio.TimerHandle | None = None
    _in_head = True
    _in_body = False
    _lingering = False  # refused; what still comes is not looked at
    _size = 0  # bytes of this head, or of this window of the body
    _moved = False  # whether a piece of the body came with what came last
    _aside = 0  # bytes since the last piece of a body that are none of it: trailers, extensions of chunks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        self._size += len(data)
        self._moved = False
        super().data_received(data)
        self._aside = self._aside + len(data) if self._in_body and not self._moved else 0
        if not (self._in_head or self._in_body):
            if self._clock is not None:
                self._disarm()
        elif self._in_head and self._size > MAX_HEAD:
            self._refuse_large("The head of the request is")
        elif self._aside > MAX_HEAD:
            self._refuse_large("The trailers of the request are")
        elif self._clock is None:
            self._arm(HEAD_SECONDS if self._in_head else WINDOW_SECONDS)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._size = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers are no headers: what stands in front may not see them, and the request is under way."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head, self._in_body, self._size = False, True, 0
        self._moved = True
        self._disarm()

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False

    def handle_websocket_upgrade(self) -> None:
        """Look at the handshake first: what the library refuses, it answers in another shape or never."""
        self._in_body = False
        self._disarm()
        if wrong := _wrong_in_handshake(self.scope["method"], self.url, self.headers):
            self._refuse(InvalidInput(f"This is not a WebSocket handshake: {wrong}.", "See RFC 6455, section 4.1."))
        else:
            super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed is refused like everything else."""
        self._refuse(InvalidInput(msg, "Send HTTP/1.1."))

    def _arm(self, seconds: float) -> None:
        self._clock = self.loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _expire(self) -> None:
        self._clock = None
        if self._in_head:
            said = f"The head of the request was not there within {HEAD_SECONDS:.0f} s."
            self._refuse(TimedOut(said, "Send it again."))
        elif self.flow.read_paused or self._size >= WINDOW_BYTES:
            self._size = 0
            self._arm(WINDOW_SECONDS)
        else:
            said = f"The body came too slowly: {self._size} bytes in {WINDOW_SECONDS:.0f} s."
            self._refuse(TimedOut(said, f"Send at least {WINDOW_BYTES} bytes in that time."))

    def _refuse_large(self, what: str) -> None:
        self._lingering = True
        said = f"{what} over the limit of {MAX_HEAD} bytes."
        self._refuse(HeadTooLarge(said, "Send large values in the body."))

    def _refuse(self, error: TreadleError) -> None:
        """Answer, unless an answer is under way, and close."""
        answered = self._answering()
        self._in_head = self._in_body = False
        self._disarm()
        if not (answered or self.transport.is_closing()):
            body = error_body(error)
            head = (
                f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        if self._lingering:
            self._clock = self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def _answering(self) -> bool:
        """Whether a part of an answer is out, or all of it while the request that it answers still comes in."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return cycle is not None and self._in_body
        return isinstance(cycle, RequestResponseCycle) and cycle.response_started


def _wrong_in_handshake(method: str, url: bytes, headers: list[tuple[bytes, bytes]]) -> str:
    """What keeps it from being one (RFC 6455, section 4.2.1, and the limits of the library), "" if nothing does."""
    named = dict(headers)
    large = len(headers) > MAX_HEADERS or any(len(name) + len(value) > MAX_HEADER for name, value in headers)
    body = named.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in named
    faults = {
        f"its method is {method}": method != "GET",
        f"its URL is over {MAX_HEADER} bytes": len(url) > MAX_HEADER,
        f"it has over {MAX_HEADERS} headers, or one over {MAX_HEADER} bytes": large,
        "a header of it comes twice": len(named) != len(headers),
        "it has a body": body,
        "Connection is not a list of words": not _is_list(parse_connection, named.get(b"connection")),
        "Sec-WebSocket-Version is not 13": named.get(b"sec-websocket-version") != b"13",
        "Sec-WebSocket-Key is not 16 bytes in base64": not KEY.fullmatch(named.get(b"sec-websocket-key", b"")),
        "Sec-WebSocket-Protocol is not a list of words": not _is_list(
            parse_subprotocol, named.get(b"sec-websocket-protocol")
        ),
    }
    return next((fault for fault, there in faults.items() if there), "")


def _is_list(parse: Callable[[str], object], value: bytes | None) -> bool:
    """Whether the library, which would refuse it in its own way, can read this header, if it is there."""
    try:
        return value is None or bool(parse(value.decode("latin-1").strip(" \t")))
    except InvalidHeaderFormat:
        return False
