"""A real Treadle for a test: a server process with its own data folder and port, driven through public interfaces."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import notes
import psutil

FINAL = {"COMPLETE", "FAILED", "CANCELLED", "TIMEOUT", "EXPIRED"}
TREADLE = [str(Path(sys.executable).with_name("treadle"))]
# One for all: making a client costs 30 ms. It keeps no connection, for servers come and go.
HTTP = httpx2.Client(trust_env=False, timeout=70, limits=httpx2.Limits(max_keepalive_connections=0))


def until(ready: Callable[[], Any], seconds: float = 60.0, what: str = "it") -> Any:
    """Wait for a condition with a deadline; answers its first true value."""
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        threading.Event().wait(0.02)
    return value


def is_alive(pid: int) -> bool:
    """Whether a process lives; one that only its parent has not buried yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def process_of(container_id: str, pid: int) -> psutil.Process | None:
    """The live process that has this number in its container, where numbers may be others than the machine's."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("CONTAINER_ID") == container_id and _inner_pid(process.pid) == pid:
                return process if is_alive(process.pid) else None
    return None


def _inner_pid(pid: int) -> int:
    """The number by which a process knows itself: the last that proc_pid_status(5) tells."""
    status = Path(f"/proc/{pid}/status")
    told = [line.split() for line in status.read_text().splitlines() if line.startswith("NSpid:")] if status.exists() else []
    return int(told[0][-1]) if told else pid


def free_port() -> int:
    """A port that is free, and that nobody is given while its server is away: below those the kernel deals out."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def shared_beside(folder: Path) -> Path:
    """Where handlers and tests leave each other files, for all places of one run: containers see no other folder."""
    shared = folder.parent / "shared"
    shared.mkdir(exist_ok=True)
    return shared


class Place:
    """One data folder and the server over it. `app(...)` writes user code; everything else is HTTP or the CLI.

    Containers are shut off as far as this machine can, as everybody's are.
    """

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.code = folder / "code"
        self.code.mkdir(parents=True)
        self.shared = shared_beside(folder)
        self.own_port = free_port()
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.token = ""
        self.log = folder / "server.log"

    @property
    def environ(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("TREADLE_")}
        own = {"TREADLE_DATA": str(self.data), "TREADLE_SHARED_FOLDERS": str(self.shared)}
        return clean | own | {"NO_COLOR": "1", "COLUMNS": "200"}

    # server

    def up(self, *flags: str, listen: bool = True, env: dict[str, str] | None = None) -> Place:
        """Start `treadle up` in the foreground of a process of its own and wait until it says where it is.

        It is the same port each time, or the one configured where it is not told to `listen`.
        """
        where = ["--port", str(self.own_port)] if listen else []
        with self.log.open("a") as out:
            self.process = subprocess.Popen(
                [*TREADLE, "up", *where, *flags],
                env=self.environ | (env or {}), stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True,
            )  # fmt: skip
        pid = self.process.pid
        until(lambda: self._announced(pid) or (self.process and self.process.poll() is not None), seconds=120, what="start")
        assert self.process.poll() is None, self.log.read_text()
        return self

    def _announced(self, pid: int) -> bool:
        try:
            said = json.loads((self.data / "server.json").read_text())
        except (OSError, ValueError):
            return False
        if said["pid"] != pid:
            return False
        self.url = said["url"]
        self.token = (self.data / "credentials.toml").read_text().split('token = "')[1].split('"')[0]
        return True

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def kill9(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self, seconds: float = 90.0) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this data folder, the server's own excepted."""
        mark, found = str(self.data), []
        for process in psutil.process_iter():
            try:
                if process.pid != (self.process.pid if self.process else 0) and mark in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended by itself
                process.kill()

    # CLI

    def cli(self, *args: str, env: dict[str, str] | None = None, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*TREADLE, *args], cwd=self.code, env=self.environ | (env or {}), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def script(self, text: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a plain Python script of the user in the code folder."""
        path = self.app(text, "script.py")
        return subprocess.run(
            [sys.executable, str(path)], cwd=self.code, env=self.environ | (env or {}), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip

    # user code

    def app(self, text: str, name: str = "app.py") -> Path:
        path = self.code / name
        path.write_text(textwrap.dedent(text))
        return path

    def deploy(self, text: str, func: str = "handler", name: str = "q", file: str = "app.py") -> dict[str, Any]:
        self.app(text, file)
        done = self.cli("deploy", f"{file}:{func}", "--name", name, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def share_notes(self) -> None:
        """Put `notes.py` beside the user code, so that handlers can import it."""
        self.app(Path(notes.__file__).read_text(), "notes.py")

    # HTTP

    def request(self, method: str, path: str, *, token: str | None = None, **kwargs: Any) -> httpx2.Response:
        headers = dict(kwargs.pop("headers", {}))
        given = self.token if token is None else token
        if given:
            headers.setdefault("Authorization", f"Bearer {given}")
        url = path if path.startswith("http") else self.url + path
        return HTTP.request(method, url, headers=headers, **kwargs)

    def submit(self, name: str = "q", **kwargs: Any) -> str:
        answer = self.request("POST", f"/taskqueue/{name}", json=kwargs)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["task_id"])

    def task(self, task_id: str, wait: float = 0) -> dict[str, Any]:
        answer = self.request("GET", f"/v2/task/{task_id}/", params={"wait": wait} if wait else {})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ended(self, task_id: str, seconds: float = 90) -> dict[str, Any]:
        """The task once it is final."""
        deadline = time.monotonic() + seconds
        while (task := self.task(task_id, wait=5))["status"] not in FINAL:
            assert time.monotonic() < deadline, f"still {task['status']} after {seconds} s: {task['why']}\n{self.log.read_text()[-3000:]}"
        return task

    def running(self, task_id: str, attempt: int = 1) -> dict[str, Any]:
        """The task once this attempt of it runs."""
        return dict(until(lambda: (t := self.task(task_id))["status"] == "RUNNING" and len(t["attempts"]) >= attempt and t))

    def cancel(self, *task_ids: str) -> list[str]:
        answer = self.request("DELETE", "/v2/task/cancel/", json={"task_ids": list(task_ids)})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["cancelled"])


class Got(NamedTuple):
    """One webhook as it arrived."""

    headers: dict[str, str]
    body: bytes
    at: float


class Receiver:
    """A webhook receiver on loopback, on a free port or the one given. `statuses` are answered in order, then 200."""

    def __init__(self, statuses: list[int] | None = None, port: int = 0) -> None:
        self.got: queue.Queue[Got] = queue.Queue()
        self.statuses = list(statuses or [])
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.got.put(Got({k.lower(): v for k, v in self.headers.items()}, body, time.time()))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def next(self, seconds: float = 60) -> Got:
        return self.got.get(timeout=seconds)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
