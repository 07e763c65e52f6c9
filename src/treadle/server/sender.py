"""Sends webhooks: one careful HTTP request per try."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Self

import httpcore2
import httpx2

from treadle.engine.webhooks import Outcome, Send, check_address
from treadle.server.delivering import AT_ONCE

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
WHOLE_SECONDS = 60.0  # a receiver that trickles its answer must not hold a slot for hours
BODY_MAX = 64 * 1024  # read of an answer, so that its connection can be used again
ADDRESSES_MAX = 4  # tried of one name

Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """The IP addresses of a name, in the system's order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to names whose every address is allowed, and to the very addresses that were checked.

    The name is resolved once, here. Nothing below resolves it again, so that no second answer of the DNS can lead
    elsewhere; Host header and TLS (SNI and certificate) keep to the name.
    """

    def __init__(self, *, allow_private: bool, allow_loopback: bool, resolve: Resolve) -> None:
        self._allow_private = allow_private
        self._allow_loopback = allow_loopback
        self._resolve = resolve
        self._tcp = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the form of httpcore2's base class
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first address that answers; `timeout` bounds resolving and connecting together."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._checked(host, port)
                # One dead address (IPv6 without a route, say) may not eat the time of those after it.
                share = None if timeout is None else timeout / len(addresses)
                for address in addresses[:-1]:
                    with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                        return await self._connect(address, port, share, local_address, socket_options)
                return await self._connect(addresses[-1], port, share, local_address, socket_options)
        except TimeoutError:
            raise httpcore2.ConnectTimeout from None

    async def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from None
        if not addresses:
            raise httpcore2.ConnectError(f"{host} has no address.")
        for address in addresses:
            reason = check_address(
                address, allow_private=self._allow_private, allow_loopback=self._allow_loopback
            )
            if reason is not None:
                raise httpcore2.ConnectError(f"{host} is refused: {reason}")
        return addresses[:ADDRESSES_MAX]

    async def _connect(
        self,
        address: str,
        port: int,
        seconds: float | None,
        local_address: str | None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return await self._tcp.connect_tcp(address, port, seconds, local_address, socket_options)
        except httpcore2.ConnectError as error:
            raise httpcore2.ConnectError(f"No connection to {address} port {port}: {_cause(error)}.") from error


def _cause(error: BaseException) -> str:
    """The words of what lies at the bottom: "Connection refused", not "All connection attempts failed"."""
    while error.__cause__ is not None:
        error = error.__cause__
    # The event loops word errors differently; the system's word for the number is the same for all.
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


class Sender:
    """Makes tries of webhooks over a pool of kept-alive connections.

    It speaks to httpcore2 directly: no redirects, proxies, cookies or decompression are there to be turned off.
    Certificates are checked against the system's store, or SSL_CERT_FILE where that is set. With `trust_loopback`
    webhooks that are `trusted` may go to loopback, though others may not.
    """

    def __init__(
        self, *, allow_private: bool, allow_loopback: bool, trust_loopback: bool = False, resolve: Resolve = resolve
    ) -> None:
        tls = httpcore2.default_ssl_context()
        # A pool each: a connection that was kept is not checked again.
        self._pools = {
            trusted: httpcore2.AsyncConnectionPool(
                ssl_context=tls,
                max_connections=2 * AT_ONCE,
                max_keepalive_connections=AT_ONCE,
                keepalive_expiry=5.0,
                network_backend=CheckedBackend(
                    allow_private=allow_private,
                    allow_loopback=allow_loopback or (trusted and trust_loopback),
                    resolve=resolve,
                ),
            )
            for trusted in (False, True)
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    async def send(self, send: Send) -> Outcome:
        """Make one try. Whatever goes wrong is an outcome, never an exception."""
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                return await self._post(send)
        except TimeoutError:
            return Outcome(error=f"No answer within {WHOLE_SECONDS:.0f} s.")
        except httpcore2.ConnectTimeout:
            return Outcome(error=f"No connection within {CONNECT_SECONDS:.0f} s.")
        except httpcore2.TimeoutException:
            return Outcome(error=f"The receiver was silent for {READ_SECONDS:.0f} s.")
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            return Outcome(error=str(error) or type(error).__name__)
        except (httpx2.InvalidURL, httpcore2.UnsupportedProtocol, ValueError) as error:
            return Outcome(error=f"{send.url!r} is not a URL that can be called: {error}")

    async def _post(self, send: Send) -> Outcome:
        url = httpx2.URL(send.url)
        if b"@" in url.netloc or url.userinfo:
            raise ValueError("it has a user name or password.")
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        timeouts = {"connect": CONNECT_SECONDS, "read": READ_SECONDS, "write": READ_SECONDS, "pool": CONNECT_SECONDS}
        request = self._pools[send.trusted].stream(
            "POST", target, headers=_headers(url, send), content=send.body, extensions={"timeout": timeouts}
        )
        async with request as response:
            headers = {name.lower(): value for name, value in response.headers}
            outcome = Outcome(
                status=response.status, retry_after=headers.get(b"retry-after", b"").decode("latin-1")[:64]
            )
            await _read_some(response)
        return outcome


def _headers(url: httpx2.URL, send: Send) -> list[tuple[bytes, bytes]]:
    headers = [(b"Host", url.netloc), (b"Accept", b"*/*")]
    return headers + [(name.encode("ascii"), value.encode("ascii")) for name, value in send.headers.items()]


async def _read_some(response: httpcore2.Response) -> None:
    """Take in a short body, and leave a long one: its connection is closed. The status has said everything."""
    size = 0
    try:
        async for chunk in response.aiter_stream():
            size += len(chunk)
            if size > BODY_MAX:
                return
    except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
        return
