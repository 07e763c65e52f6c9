"""The ground of a round: one data folder, a server over it that can be killed and started again, and its containers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

import httpx2
import psutil

from . import fire

T = TypeVar("T")
TESTS = Path(__file__).parents[1]
DEPLOY = "import sys, fire; [getattr(fire, name).deploy(name) for name in sys.argv[1:]]"
PORTS = range(20_000, 32_000)  # below those that the kernel gives out: nobody takes ours while the server is down
HTTP = httpx2.Client(trust_env=False, timeout=30, limits=httpx2.Limits(max_keepalive_connections=0))


class Broken(Exception):
    """Something that was promised did not hold."""


class How(NamedTuple):
    """How a server is started: as `treadle up`, or with something between or below (serving.py)."""

    link: str = ""  # URL of a proxy that agent and runners are to use
    apart: bool = False  # the agent in a process of its own
    power: bool = False  # its files under the power shim

    @property
    def plain(self) -> bool:
        return self == How()


def until(ready: Callable[[], T], seconds: float, what: str) -> T:
    """The first true value of a condition.

    Raises:
        Broken: there was none in time.
    """
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        if time.monotonic() > deadline:
            raise Broken(f"{what}: not within {seconds:g} s")
        threading.Event().wait(0.02)
    return value


def free_port(chance: Random) -> int:
    while True:
        port = chance.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


class Ground:
    """Everything is below `folder`. `callback` is where webhooks go."""

    def __init__(self, folder: Path, callback: str, *, isolation: str = "auto") -> None:
        self.folder = folder
        self.data = folder / "data"
        self.shared = folder / "shared"
        self.log = folder / "server.log"
        self.how = How()
        self.token = ""
        self.port = free_port(Random())
        self.url = f"http://127.0.0.1:{self.port}"
        self.server: subprocess.Popen[str] | None = None
        self.agent: subprocess.Popen[str] | None = None
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("TREADLE_")} | {
            "TREADLE_DATA": str(self.data),
            "TREADLE_SHARED_FOLDERS": str(self.shared),
            "TREADLE_ISOLATION": isolation,
            "CRASH_FOLDER": str(self.shared),
            "CRASH_CALLBACK": callback,
            "NO_COLOR": "1",
            "PYTHONPATH": str(TESTS),
        }
        self.shared.mkdir(parents=True)
        (self.shared / "ledger").touch()

    # processes

    def start(self, how: How | None = None) -> None:
        """Start the server (as before, unless told otherwise) and wait until it answers."""
        self.how = how or self.how
        self.server = self._run(self._command())
        pid = self.server.pid
        until(lambda: self._announced(pid) or not is_alive(pid), 120, "the start of the server")
        if self.server.poll() is not None:
            raise Broken(f"the server did not start:\n{self.log.read_text()[-3000:]}")
        self.token = (self.data / "credentials.toml").read_text().split('token = "')[1].split('"')[0]
        if self.how.apart and (self.agent is None or self.agent.poll() is not None):
            self.start_agent()

    def start_agent(self) -> None:
        self.agent = self._run([sys.executable, "-m", "crash.serving", "agent", str(self.data)])

    def _command(self) -> list[str]:
        if self.how.plain:
            return [str(Path(sys.executable).with_name("treadle")), "up", "--port", str(self.port), "--grace", "5"]
        given = {"data": str(self.data), "port": self.port, "grace": 5, **self.how._asdict()}
        return [sys.executable, "-P", "-m", "crash.serving", json.dumps(given)]

    def _run(self, command: list[str]) -> subprocess.Popen[str]:
        with self.log.open("a") as out:
            return subprocess.Popen(
                command, env=self._environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True
            )

    def _announced(self, pid: int) -> bool:
        try:
            return bool(json.loads((self.data / "server.json").read_text())["pid"] == pid)
        except (OSError, ValueError):
            return False

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait(20)

    def kill_agent(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait(20)

    def stop(self) -> None:
        """End all in good order; nothing may be left of it.

        Raises:
            Broken: the server told of trouble, or there is.
        """
        assert self.server is not None
        self.server.send_signal(signal.SIGTERM)
        code = self.server.wait(60)
        if self.agent is not None:
            self.agent.terminate()
            self.agent.wait(20)
        if code:
            raise Broken(f"the server ended with exit code {code}")
        until(lambda: not self.processes(), 20, "the end of all processes")

    def processes(self) -> list[psutil.Process]:
        """All that belongs to this ground: by the data folder in the command line, or the shared one in the
        environment of containers (which programs that tasks have started inherit)."""
        marks, found = (str(self.data), f"CRASH_FOLDER={self.shared}"), []
        own = {process.pid for process in (self.server, self.agent) if process is not None}
        for pid in psutil.pids():
            if pid not in own and pid != os.getpid() and any(mark in about(pid) for mark in marks) and is_alive(pid):
                with contextlib.suppress(psutil.NoSuchProcess):  # it has ended just now
                    found.append(psutil.Process(pid))
        return found

    def kill_all(self) -> None:
        """The end of the machine: server, agent, and every process of every container."""
        for process in (self.server, self.agent):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(20)
        deadline = time.monotonic() + 20
        while (left := self.processes()) and time.monotonic() < deadline:
            for process in left:
                kill(process.pid)

    # what is asked of the server

    def deploy(self, *queues: str) -> None:
        """Deploy these queues of `fire.py`."""
        done = subprocess.run(
            [sys.executable, "-c", DEPLOY, *queues], cwd=Path(fire.__file__).parent, env=self._deploying(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Broken(f"deploying failed:\n{done.stdout}{done.stderr}\n{self.log.read_text()[-2000:]}")

    def start_anew(self) -> None:
        """As a person does who has mended the machine: have no queue rest from failed starts."""
        for deployment in self.get("/v2/deployments")["data"]:
            answer = HTTP.post(f"{self.url}/v2/deployments/{deployment['id']}/start", headers=self._headers)
            answer.raise_for_status()

    def _deploying(self) -> dict[str, str]:
        return self._environ | {"TREADLE_URL": self.url, "TREADLE_TOKEN": self.token}

    def submit(self, queue: str, body: dict[str, Any]) -> str:
        answer = HTTP.post(f"{self.url}/taskqueue/{queue}", json=body, headers=self._headers)
        answer.raise_for_status()
        return str(answer.json()["task_id"])

    def cancel(self, tasks: list[str]) -> list[str]:
        """Those that this request has cancelled."""
        body = {"task_ids": tasks}
        answer = HTTP.request("DELETE", f"{self.url}/v2/task/cancel/", json=body, headers=self._headers)
        answer.raise_for_status()
        return list(answer.json()["cancelled"])

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def get(self, path: str, **params: Any) -> Any:
        answer = HTTP.get(self.url + path, params=params, headers=self._headers)
        answer.raise_for_status()
        return answer.json()


def about(pid: int) -> str:
    """Command line and environment of a process, in one string."""
    try:
        parts = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    except OSError:
        return ""
    return b"\0".join(parts).decode(errors="replace").replace("\0", " ")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
