"""HTTP by hand over one kept-alive socket: what a request costs then is the server's doing, not a library's."""

from __future__ import annotations

import socket


class Wire:
    """One connection; one request at a time."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._socket = socket.create_connection((host, port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = f" HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"

    def close(self) -> None:
        self._socket.close()

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send JSON; returns status and body."""
        head = f"POST {path}{self._rest}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return self._exchange(head.encode() + body)

    def get(self, path: str) -> tuple[int, bytes]:
        return self._exchange(f"GET {path}{self._rest}\r\n".encode())

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        self._socket.sendall(request)
        data = b""
        while (answer := whole(data)) is None:
            data += self._more()
        return answer

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection in the middle of an answer")
        return data


def whole(data: bytes) -> tuple[int, bytes] | None:
    """Status and body of the answer that these bytes are, once all of it is there."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end or len(body) < int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]):
        return None
    return int(head[9:12]), body
