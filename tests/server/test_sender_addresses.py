"""Where webhooks go: to the very address that was checked, whatever a URL or the DNS says (SSRF)."""

from __future__ import annotations

import msgspec
import pytest

from treadle.server.sender import Sender

from .test_sender import Receiver, a_send, in_loop, names


@pytest.mark.parametrize("host", [
    "localhost", "LOCALHOST", "127.0.0.1", "127.1", "2130706433", "017700000001", "0x7f.1", "0x7f000001", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]",
])  # fmt: skip
def test_loopback_is_refused_by_every_name_when_not_allowed(host: str) -> None:
    """Names and odd spellings are judged by the address they lead to; nothing is sent."""

    async def work() -> None:
        async with Receiver() as receiver, Sender(allow_private=True, allow_loopback=False) as sender:
            outcome = await sender.send(a_send(f"http://{host}:{receiver.port}/"))
            assert outcome.status is None
            assert "loopback" in outcome.error
            assert receiver.connections == 0

    in_loop(work())


@pytest.mark.parametrize("host", [
    "0", "0.0.0.0", "[::]", "[::127.0.0.1]", "[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25lo]", "127.0.0.1%00", "\uff11\uff12\uff17.0.0.1",
    "127.0.0.1\\@good.example", "127。0。0。1", "256.256.256.256", "08.8.8.8", "1.1.1.1.1", "", ".", "localhost.", "127.0.0.1.", "0177.0.0.1",
])  # fmt: skip
def test_nothing_is_sent_to_what_is_no_address_of_a_receiver(host: str) -> None:
    """Unspecified, with a zone, in digits of other scripts, or no address at all; whatever else may be allowed."""

    async def work() -> None:
        async with Receiver() as receiver, Sender(allow_private=True, allow_loopback=False) as sender:
            outcome = await sender.send(a_send(f"http://{host}:{receiver.port}/"))
            assert outcome.status is None
            assert outcome.error
            assert receiver.connections == 0

    in_loop(work())


@pytest.mark.parametrize(("answers", "statuses"), [
    (["127.0.0.1", "10.0.0.1"], [200, None]), (["10.0.0.1", "127.0.0.1"], [None, 200]),
    (["127.0.0.1", "169.254.169.254", "127.0.0.1"], [200, None, 200]),
])  # fmt: skip
def test_a_name_that_changes_its_answer_leads_nowhere_else(answers: list[str], statuses: list[int | None]) -> None:
    """DNS rebinding: each connection goes to the answer that was checked for it, and no answer is asked for twice."""
    left = list(answers)

    async def resolve(_host: str, _port: int) -> list[str]:
        return [left.pop(0)]

    async def work() -> None:
        closing = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        async with (
            Receiver(closing) as receiver,
            Sender(allow_private=False, allow_loopback=True, resolve=resolve) as sender,
        ):
            url = f"http://rebound.invalid:{receiver.port}/"
            assert [(await sender.send(a_send(url))).status for _ in answers] == statuses
            assert (receiver.connections, left) == (statuses.count(200), [])

    in_loop(work())


@pytest.mark.parametrize("end", ["/\r\nX-Forged: 1", "/ HTTP/1.1\r\nX-Forged: 1\r\n\r\n", "/?a=\nX-Forged: 1", "/\x00", "/#\r\nX-Forged: 1"])
def test_a_url_cannot_forge_a_header(end: str) -> None:
    """Were it in the store: it is not called, or what is special in it is percent-encoded."""

    async def work() -> None:
        async with Receiver() as receiver, Sender(allow_private=False, allow_loopback=True) as sender:
            await sender.send(a_send(f"http://127.0.0.1:{receiver.port}{end}"))
            for request in receiver.requests:
                assert not [name for name in request.headers if "forged" in name.lower()]
            assert len(receiver.requests) <= 1

    in_loop(work())


def test_loopback_may_be_for_trusted_urls_alone() -> None:
    """A connection that was kept for one who may is not used for one who may not."""

    async def work() -> None:
        async with Receiver() as receiver, Sender(allow_private=True, allow_loopback=False, trust_loopback=True) as sender:
            send = a_send(f"http://127.0.0.1:{receiver.port}/")
            trusted = msgspec.structs.replace(send, trusted=True)
            outcomes = [await sender.send(one) for one in (trusted, send, trusted, send)]
            assert [outcome.status for outcome in outcomes] == [200, None, 200, None]
            assert "loopback" in outcomes[1].error
            assert (len(receiver.requests), receiver.connections) == (2, 1)

    in_loop(work())


def test_a_name_with_one_refused_address_is_refused() -> None:
    """A public address beside a private one does not make the private one acceptable, nor the name."""

    async def work() -> None:
        resolve, _ = names({"mixed.example": ["93.184.216.34", "10.0.0.1"]})
        async with Sender(allow_private=False, allow_loopback=False, resolve=resolve) as sender:
            outcome = await sender.send(a_send("http://mixed.example/"))
            assert outcome.error == (
                "mixed.example is refused: 10.0.0.1 is a private address, and webhooks are not sent there without allow_private_webhooks."
            )

    in_loop(work())


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """The name is resolved once, only by us, and stays in the Host header."""

    async def work() -> None:
        # `.invalid` can be resolved by nobody else: whoever asked the system again would fail.
        resolve, asked = names({"hooks.invalid": ["127.0.0.1"]})
        async with (
            Receiver() as receiver,
            Sender(allow_private=False, allow_loopback=True, resolve=resolve) as sender,
        ):
            outcome = await sender.send(a_send(f"http://hooks.invalid:{receiver.port}/"))
            assert outcome.status == 200
            assert receiver.requests[0].headers["Host"] == f"hooks.invalid:{receiver.port}"
            assert asked == {"hooks.invalid": 1}

    in_loop(work())


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    """A name with a dead address first is still reached."""

    async def work() -> None:
        resolve, _ = names({"two.invalid": ["127.77.0.1", "127.0.0.1"]})
        async with (
            Receiver() as receiver,  # listens on 127.0.0.1 alone
            Sender(allow_private=False, allow_loopback=True, resolve=resolve) as sender,
        ):
            assert (await sender.send(a_send(f"http://two.invalid:{receiver.port}/"))).status == 200

    in_loop(work())
