"""A container without a network: no way out but the relay to the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.model.container import Isolation
from treadle.model.wire import LoadFailed

from .boxes import Box, needs, sandbox
from .link_server import Server
from .running import Runner

pytestmark = [pytest.mark.process, needs(Isolation.NAMESPACES)]


@pytest.fixture
def closed(runner: Runner, tmp_path: Path) -> Box:
    """A container without a network."""
    return Box(runner, tmp_path, Isolation.NAMESPACES, block_network=True)


def test_without_a_network_there_is_no_way_out(closed: Box, server: Server) -> None:
    """Neither to the server's own port on loopback nor elsewhere; and the parent keeps its link meanwhile."""
    connect = "import socket; socket.create_connection((HOST, PORT), 2)"
    assert closed.refusal(connect, HOST="127.0.0.1", PORT=server.port) == "ConnectionRefusedError"
    assert closed.refusal(connect, HOST="192.0.2.1", PORT=80) == "OSError"
    assert closed.refusal(connect, HOST="2001:db8::1", PORT=80) == "OSError"
    devices = closed.run("return Path('/proc/net/dev').read_text()").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def test_without_a_network_loopback_works_inside(closed: Box) -> None:
    """A server of the container's own can be reached by its own processes."""
    assert closed.run("""
        import socket
        server = socket.create_server(("127.0.0.1", 0))
        socket.create_connection(server.getsockname(), 5).sendall(b"ok")
        return server.accept()[0].recv(2).decode()
    """) == "ok"


def test_without_a_network_the_relay_leads_to_the_server_and_nowhere_else(closed: Box, server: Server) -> None:
    """Bytes go to the server's port and back."""
    answer = closed.run("""
        import socket
        host, port = os.environ["TREADLE_RELAY"].split(":")
        with socket.create_connection((host, int(port)), 5) as sock:
            sock.sendall(b"GET http://192.0.2.1/ HTTP/1.1\\r\\nHost: 192.0.2.1\\r\\n\\r\\n")
            return sock.recv(100).decode()
    """)
    assert answer.startswith("HTTP/1.1 ")


def test_a_network_is_not_left_open_in_silence(runner: Runner, tmp_path: Path) -> None:
    """At a level that cannot block it, a container that asks for that does not start."""
    runner.launch("def handler(): return 1", sandbox=sandbox(tmp_path, Isolation.PROCESS, block_network=True))
    assert "from level 2 on" in runner.server.accept().next(LoadFailed).reason
