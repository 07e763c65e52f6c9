"""Webhooks on the wire: a real receiver and real sockets."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from treadle.engine.signing import beam_signature, standard_secret, webhook_headers
from treadle.engine.webhooks import Outcome, Send
from treadle.model.task import Delivery, DeliveryStatus
from treadle.server import sender as sender_module
from treadle.server.sender import BODY_MAX, Sender

KEY = "sk_ZXhhbXBsZS1rZXk="
BODY = b'{"data": {"width": 128}}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DEADLINE = 20.0


class Request:
    """One request as it came over the wire."""

    def __init__(self, line: str, headers: dict[str, str], body: bytes) -> None:
        self.line = line
        self.headers = headers
        self.body = body


class Receiver:
    """A small HTTP server on a free port of 127.0.0.1 that answers every request with the same bytes."""

    def __init__(self, answer: bytes = OK, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self._tls = tls

    async def __aenter__(self) -> Receiver:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name: value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                body = await reader.readexactly(int(headers["Content-Length"]))
                self.requests.append(Request(head[0], headers, body))
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            writer.close()


def a_send(url: str, message_id: str = "msg_1") -> Send:
    delivery = Delivery(
        id=message_id, task_id="t", url=url, status=DeliveryStatus.PENDING, due=0.0, created_at=0.0
    )
    headers = webhook_headers(
        KEY, message_id=message_id, task_id="t", status="COMPLETE", body=BODY, timestamp=int(time.time())
    )
    return Send(delivery=delivery, url=url, body=BODY, headers=headers)


def in_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine to its end, within a deadline."""

    async def within() -> None:
        await asyncio.wait_for(work, DEADLINE)

    asyncio.run(within())


def names(table: dict[str, list[str]]) -> tuple[Callable[[str, int], Awaitable[list[str]]], Counter[str]]:
    """A resolver that knows these names, and how often each was asked."""
    asked: Counter[str] = Counter()

    async def resolve(host: str, port: int) -> list[str]:
        asked[host] += 1
        return table[host]

    return resolve, asked


def test_a_webhook_arrives_with_body_headers_and_both_signatures() -> None:
    """The receiver gets a POST that Beam's check and the `standardwebhooks` package both verify."""

    async def work() -> None:
        async with Receiver() as receiver, Sender(allow_private=False, allow_loopback=True) as sender:
            outcome = await sender.send(a_send(f"http://127.0.0.1:{receiver.port}/hook?a=1"))
            assert outcome == Outcome(status=200)
            (request,) = receiver.requests
            assert request.line == "POST /hook?a=1 HTTP/1.1"
            assert request.body == BODY
            assert request.headers["Host"] == f"127.0.0.1:{receiver.port}"
            assert request.headers["Content-Type"] == "application/json"
            stamp = int(request.headers["X-Task-Timestamp"])
            assert request.headers["X-Task-Signature"] == beam_signature(KEY, request.body, stamp)
            Webhook(standard_secret(KEY)).verify(request.body, request.headers)

    in_loop(work())


def test_a_name_and_password_in_the_url_are_not_sent() -> None:
    """No URL with them is taken any more; one that is in the store from before is not called."""

    async def work() -> None:
        async with Receiver() as receiver, Sender(allow_private=False, allow_loopback=True) as sender:
            for user in ("ann:p%40ss", "ann", ":x"):
                outcome = await sender.send(a_send(f"http://{user}@127.0.0.1:{receiver.port}/"))
                assert outcome.status is None
                assert "user name" in outcome.error
            assert receiver.connections == 0

    in_loop(work())


def test_a_connection_is_used_again() -> None:
    """Tries one after the other to one receiver share a connection."""

    async def work() -> None:
        async with Receiver() as receiver, Sender(allow_private=False, allow_loopback=True) as sender:
            for _ in range(3):
                assert (await sender.send(a_send(f"http://127.0.0.1:{receiver.port}/"))).status == 200
            assert (len(receiver.requests), receiver.connections) == (3, 1)

    in_loop(work())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is the outcome; nothing is sent to where it points."""

    async def work() -> None:
        async with Receiver() as other, Receiver() as receiver:
            receiver.answer = (
                f"HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:{other.port}/\r\nContent-Length: 0\r\n\r\n"
            ).encode()
            async with Sender(allow_private=False, allow_loopback=True) as sender:
                assert (await sender.send(a_send(f"http://127.0.0.1:{receiver.port}/"))).status == status
            assert (len(receiver.requests), len(other.requests)) == (1, 0)

    in_loop(work())


def test_retry_after_is_told() -> None:
    """Status and Retry-After of a refusal are in the outcome."""

    async def work() -> None:
        answer = b"HTTP/1.1 429 Slow down\r\nretry-after: 120\r\nContent-Length: 0\r\n\r\n"
        async with Receiver(answer) as receiver, Sender(allow_private=False, allow_loopback=True) as sender:
            outcome = await sender.send(a_send(f"http://127.0.0.1:{receiver.port}/"))
            assert outcome == Outcome(status=429, retry_after="120")

    in_loop(work())


def test_an_endless_answer_is_cut_off() -> None:
    """A body that is longer than the limit, and never ends, is left; the status counts."""

    async def work() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * (BODY_MAX + 1)
        async with Receiver(answer) as receiver, Sender(allow_private=False, allow_loopback=True) as sender:
            for _ in range(2):
                assert (await sender.send(a_send(f"http://127.0.0.1:{receiver.port}/"))).status == 200
            assert receiver.connections == 2

    in_loop(work())


def test_an_answer_that_breaks_off_counts_by_its_status() -> None:
    """The receiver has said 200; that its body is incomplete changes nothing."""

    async def work() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, Sender(allow_private=False, allow_loopback=True) as sender:
            port = server.sockets[0].getsockname()[1]
            assert await sender.send(a_send(f"http://127.0.0.1:{port}/")) == Outcome(status=200)

    in_loop(work())


def test_a_receiver_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence, and a head that trickles in for ever, both end as outcomes within the limits."""
    monkeypatch.setattr(sender_module, "READ_SECONDS", 0.05)
    monkeypatch.setattr(sender_module, "WHOLE_SECONDS", 0.4)

    async def work() -> None:
        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    writer.write(b"H")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            except ConnectionError:
                writer.close()

        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        async with Receiver(b"") as receiver, server, Sender(allow_private=False, allow_loopback=True) as sender:
            silent = await sender.send(a_send(f"http://127.0.0.1:{receiver.port}/"))
            assert silent.status is None
            assert "silent" in silent.error
            port = server.sockets[0].getsockname()[1]
            trickling = await sender.send(a_send(f"http://127.0.0.1:{port}/"))
            assert trickling.status is None
            assert trickling.error

    in_loop(work())


def test_nobody_listening_is_an_outcome() -> None:
    """The error says that the connection was refused."""

    async def work() -> None:
        async with Receiver() as receiver:
            port = receiver.port
        async with Sender(allow_private=False, allow_loopback=True) as sender:
            outcome = await sender.send(a_send(f"http://127.0.0.1:{port}/"))
            assert outcome.status is None
            assert outcome.error == f"No connection to 127.0.0.1 port {port}: Connection refused."

    in_loop(work())


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a b/", "ftp://127.0.0.1/", "http://" + "a" * 300 + ".com:99999/", "http:///x", ""]
)
def test_a_broken_url_is_an_outcome(url: str) -> None:
    """What cannot be called says so and raises nothing."""

    async def work() -> None:
        async with Sender(allow_private=True, allow_loopback=True) as sender:
            outcome = await sender.send(a_send(url))
            assert outcome.status is None
            assert outcome.error

    in_loop(work())


def test_an_unknown_name_is_an_outcome() -> None:
    """A name that the system cannot resolve is told by name."""

    async def work() -> None:
        async with Sender(allow_private=False, allow_loopback=False) as sender:
            outcome = await sender.send(a_send("http://nobody.invalid/"))
            assert outcome.error.startswith("nobody.invalid cannot be resolved")

    in_loop(work())


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to what we have not checked."""

    async def work() -> None:
        async with Receiver() as proxy, Receiver() as receiver:
            for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            async with Sender(allow_private=False, allow_loopback=True) as sender:
                assert (await sender.send(a_send(f"http://127.0.0.1:{receiver.port}/"))).status == 200
            assert (len(proxy.requests), len(receiver.requests)) == (0, 1)

    in_loop(work())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for the name hooks.invalid, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", "/CN=hooks.invalid", "-addext", "subjectAltName=DNS:hooks.invalid",
             "-keyout", "key.pem", "-out", "cert.pem"],
            cwd=folder, check=True, capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return folder


@pytest.mark.parametrize(("host", "verified"), [("hooks.invalid", True), ("other.invalid", False)])
def test_tls_is_checked_against_the_name(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str, verified: bool
) -> None:
    """SNI and certificate belong to the name in the URL though the connection goes to the checked address."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    seen: list[str | None] = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    tls.sni_callback = lambda _socket, name, _context: seen.append(name)

    async def work() -> None:
        resolve, _ = names({host: ["127.0.0.1"]})
        async with (
            Receiver(tls=tls) as receiver,
            Sender(allow_private=False, allow_loopback=True, resolve=resolve) as sender,
        ):
            outcome = await sender.send(a_send(f"https://{host}:{receiver.port}/"))
            assert (outcome.status == 200) == verified
            assert len(receiver.requests) == int(verified)
            assert verified or "certificate" in outcome.error
        assert seen == [host]

    in_loop(work())
