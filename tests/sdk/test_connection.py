"""The client's own HTTP: answers in any pieces are read, what is no HTTP is told, TLS is checked."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from treadle import connection as http
from treadle.client import Client
from treadle.connection import MAX_HEAD, MAX_LINE, MAX_TRAILER, Answer, BadAnswer, Connection
from treadle.model.errors import Unreachable

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Script = Callable[[socket.socket], None]


@contextmanager
def server(script: Script) -> Iterator[int]:
    """A socket that accepts one connection and does what the script says; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            accepted, _ = listening.accept()
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with accepted, suppress(OSError):  # the client may have seen enough
                script(accepted)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            thread.join(10)


@contextmanager
def answering(*pieces: bytes, answers: int = 1) -> Iterator[Connection]:
    """A connection whose other side sends these pieces after each of so many requests, then closes."""

    def script(accepted: socket.socket) -> None:
        for _ in range(answers):
            accepted.recv(65536)
            for piece in pieces:
                accepted.sendall(piece)

    with server(script) as port, closing(Connection("127.0.0.1", port, tls=False, timeout=5)) as opened:
        yield opened


def ask(connection: Connection, *, to_head: bool = False) -> Answer:
    connection.send(GET, b"", 0)
    return connection.answer(to_head=to_head)


def bytewise(answer: bytes) -> Sequence[bytes]:
    return [answer[at : at + 1] for at in range(len(answer))]


@pytest.mark.parametrize("cut", [lambda answer: [answer], bytewise], ids=["whole", "bytewise"])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nfirst\nsecon",
        CHUNKED + b"5\r\nfirst\r\n6;why=not\r\n\nsecon\r\n0\r\n\r\n",
        CHUNKED + b"00B \r\nfirst\nsecon\r\n0\r\nX-Sum: 1\r\nX-Two: 2\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200\r\nCONTENT-LENGTH:11\r\n\r\nfirst\nsecon",
    ],
    ids=["length", "chunked", "trailer", "interim"],
)
def test_an_answer_is_read_in_whatever_pieces_it_comes(
    answer: bytes, cut: Callable[[bytes], Sequence[bytes]]
) -> None:
    """Length or chunks, in one packet or byte by byte; the connection then takes the next request."""
    with answering(*cut(answer), answers=2) as connection:
        for _ in range(2):
            got = ask(connection)
            assert (got.status, got.read(), got.leaves_open) == (200, b"first\nsecon", True)


def test_lines_come_as_soon_as_they_are_there() -> None:
    """A line does not wait for the next one."""
    seen = threading.Event()

    def script(accepted: socket.socket) -> None:
        accepted.recv(65536)
        accepted.sendall(CHUNKED + b"8\r\none\ntwo\n\r\n")
        assert seen.wait(5)
        accepted.sendall(b"5\r\nthree\r\n0\r\n\r\n")

    with server(script) as port, closing(Connection("127.0.0.1", port, tls=False, timeout=5)) as connection:
        lines = ask(connection).lines()
        assert [next(lines), next(lines)] == [b"one", b"two"]
        seen.set()
        assert list(lines) == [b"three"]


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"304 Not Modified"])
def test_an_answer_without_a_body_ends_with_its_head(status: bytes) -> None:
    """To HEAD, or with a status that has none, a length announces nothing."""
    with answering(b"HTTP/1.1 " + status + b"\r\nContent-Length: 10\r\n\r\n", answers=2) as connection:
        for _ in range(2):
            answer = ask(connection, to_head=status.startswith(b"200"))
            assert (answer.read(), answer.leaves_open) == (b"", True)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: Upgrade, Close\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_a_connection_that_is_to_close_is_not_kept(head: bytes) -> None:
    """`Connection: close`, HTTP/1.0, or a body that ends with the connection."""
    with answering(head + b"ok") as connection:
        answer = ask(connection)
        assert (answer.read(), answer.leaves_open) == (b"ok", False)


def test_an_answer_that_was_not_read_to_its_end_does_not_leave_the_connection_open() -> None:
    """What is left of it would be taken for the next answer."""
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"body") as connection:
        answer = ask(connection)
        assert not answer.leaves_open
        next(answer.blocks())
        assert not answer.leaves_open


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "hung up"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1: b'SSH-2.0"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "not HTTP/1"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP/1"),
        (b"HTTP/1.1 OK\r\n\r\n", "not HTTP/1"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "not HTTP/1"),
        (b"HTTP/1.1 +20 OK\r\n\r\n", "not HTTP/1"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "in the middle of an answer"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "header line b'no header'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "header line"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "header line b' folded'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", "content length b'-2'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "content length b'2, 3'"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer encoding b'gzip, chunked'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer encoding"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "switched"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD + 10), f"over {MAX_HEAD} bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "6 bytes before the end"),
        (CHUNKED + b"5\r\nab", "3 bytes before the end"),
        (CHUNKED + b"5\r\nabcde\r\n", "in the middle of an answer"),
        (CHUNKED + b"0x5\r\nabcde\r\n0\r\n\r\n", "chunk size b'0x5'"),
        (CHUNKED + b"-5\r\n", "chunk size"),
        (CHUNKED + b"\r\n", "chunk size b''"),
        (CHUNKED + b"2\r\nabcde\r\n", "longer than announced"),
        (CHUNKED + b"1" * (MAX_LINE + 10), f"over {MAX_LINE} bytes"),
        (CHUNKED + b"0\r\n" + b"A: b\r\n" * (MAX_TRAILER + 1), f"over {MAX_TRAILER} lines"),
    ],
)
def test_what_is_not_an_answer_is_told(answer: bytes, told: str) -> None:
    """Malformed, over-long or cut off: an error that says what came; nothing of it is taken for an answer."""
    with answering(answer) as connection, pytest.raises(BadAnswer) as caught:
        ask(connection).read()
    assert told in str(caught.value)


def test_each_request_goes_out_in_one_piece() -> None:
    """Head and body are one write, so that the server wakes once."""
    pieces: list[bytes] = []

    def script(accepted: socket.socket) -> None:
        pieces.append(accepted.recv(65536))
        accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with server(script) as port, closing(Connection("127.0.0.1", port, tls=False, timeout=5)) as connection:
        connection.send(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n", b"body", 4)
        connection.answer()
    assert pieces == [b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"]


def test_of_a_file_no_more_is_sent_than_announced() -> None:
    """A file that grows meanwhile does not spill into the next request; one that shrinks is told."""
    got = b""

    def script(accepted: socket.socket) -> None:
        nonlocal got
        while more := accepted.recv(65536):
            got += more

    with tempfile.TemporaryFile() as file, server(script) as port:
        file.write(b"123456")
        file.seek(0)
        with closing(Connection("127.0.0.1", port, tls=False, timeout=5)) as connection:
            connection.send(b"head", file, 4)
            with pytest.raises(BadAnswer, match="shorter"):
                connection.send(b"", file, 4)
    assert got == b"head123456"


def test_an_open_connection_tells_when_it_is_no_longer_quiet() -> None:
    """Closed by the other side, or spoken to unasked: neither takes another request."""
    go = threading.Event()

    def script(accepted: socket.socket) -> None:
        accepted.recv(65536)
        accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        go.wait(5)

    with server(script) as port, closing(Connection("127.0.0.1", port, tls=False, timeout=5)) as connection:
        assert ask(connection).leaves_open is False
        assert connection.is_quiet()
        go.set()
        assert select.select([connection._socket], [], [], 5)[0]
        assert not connection.is_quiet()
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore") as connection:
        ask(connection).read()
        assert not connection.is_quiet()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that it signed itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not here to make a certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += [
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture
def tls_server(certificate: tuple[Path, Path]) -> Iterator[str]:
    """A server that speaks TLS and answers twice on one connection; its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def script(accepted: socket.socket) -> None:
        with context.wrap_socket(accepted, server_side=True) as secure:
            for _ in range(2):
                secure.recv(65536)
                body = b'{"status":"ok","version":"1","pid":1}'
                secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with server(script) as port:
        yield f"https://127.0.0.1:{port}"


@pytest.mark.process
def test_https_is_spoken_to_a_server_with_a_trusted_certificate(
    tls_server: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests go over one connection; the certificates trusted are the system's, or SSL_CERT_FILE's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    http._tls.cache_clear()
    client = Client(tls_server)
    assert [client.health().status, client.health().status] == ["ok", "ok"]
    http._tls.cache_clear()


@pytest.mark.process
def test_a_certificate_that_nobody_signed_is_refused(tls_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent, and the reason is told."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    http._tls.cache_clear()
    with pytest.raises(Unreachable, match=r"certificate verify failed"):
        Client(tls_server).health()
