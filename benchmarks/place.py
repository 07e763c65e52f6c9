"""A real Treadle to measure: a server with a data folder of its own, reached as users reach it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil

from benchmarks.marks import Marks, MeasureFailed
from benchmarks.wire import Wire
from treadle.client import Client

HERE = Path(__file__).parent
UNFINISHED = ("PENDING", "RUNNING", "RETRY")
WATCHED = 200  # of the last tasks: more than are accepted or running at once
TREADLE = [sys.executable, "-m", "treadle"]


class Queue(NamedTuple):
    """A deployed queue."""

    name: str
    id: str

    @property
    def path(self) -> str:
        """Where its tasks are posted to."""
        return f"/taskqueue/{self.name}"


class Place:
    """A data folder, the server over it, a folder of user code, and a folder in memory for what handlers note."""

    def __init__(self, folder: Path, notes: Path) -> None:
        self.folder, self.data, self.code, self.notes = folder, folder / "data", folder / "code", notes
        self.data.mkdir(parents=True)
        notes.mkdir()
        self.marks = Marks(notes / "marks")
        self.url = self.token = ""
        self.pid = 0
        self._queues: dict[str, Queue] = {}
        shutil.copytree(HERE / "apps", self.code, ignore=shutil.ignore_patterns("__pycache__"))

    @property
    def environ(self) -> dict[str, str]:
        foreign = ("TREADLE_", "PYTHONDONTWRITEBYTECODE")  # programs that are installed have their bytecode
        clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        own = {"TREADLE_DATA": str(self.data), "BENCH_NOTES": str(self.notes), "NO_PROXY": "127.0.0.1"}
        own["TREADLE_SHARED_FOLDERS"] = str(self.notes)
        return clean | own

    # the server

    def up(self, port: int = 0) -> None:
        """`treadle up --detach`, on a free port or this one."""
        self._cli("up", "--detach", "--port", str(port), "--data", str(self.data))
        said = json.loads((self.data / "server.json").read_text())
        self.url, self.pid = said["url"], said["pid"]
        self.token = (self.data / "credentials.toml").read_text().split('token = "')[1].split('"')[0]
        parts = urlsplit(self.url)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        self.client = Client(self.url, self.token)

    def down(self) -> None:
        if self.pid:
            self._cli("down", "--data", str(self.data))
            self.pid = 0

    def close(self) -> None:
        """Stop the server, kill what it left, remove the folders."""
        with contextlib.suppress(MeasureFailed):
            self.down()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.notes, ignore_errors=True)

    def _cli(self, *args: str) -> str:
        done = subprocess.run(
            [*TREADLE, *args], cwd=self.code, env=self.environ, capture_output=True, text=True, timeout=180,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise MeasureFailed(f"`treadle {args[0]}` failed: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout

    def queue(self, function: str, file: str = "queues.py") -> Queue:
        """The queue of this function, deployed at its first use under the function's name."""
        if function not in self._queues:
            said = json.loads(self._cli("deploy", f"{file}:{function}", "--name", function, "--json"))
            self._queues[function] = Queue(function, said["deployment_id"])
        return self._queues[function]

    def wire(self) -> Wire:
        return Wire(self.host, self.port, self.token)

    # processes

    def processes(self) -> list[psutil.Process]:
        """The server, whatever it started, and whatever works in its folder or names it."""
        found: dict[int, psutil.Process] = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.pid) if self.pid else None
            for process in [server, *server.children(recursive=True)] if server else []:
                found[process.pid] = process
        for process in psutil.process_iter(["cmdline", "cwd"]):
            texts = [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]
            if process.pid != os.getpid() and any(str(self.data) in text for text in texts):
                found[process.pid] = process
        return list(found.values())

    def containers(self) -> set[str]:
        """The containers in which a process works, told by their folders."""
        inside = self.data / "agent" / "containers"
        cwds = [Path(process.info["cwd"] or "/") for process in psutil.process_iter(["cwd"])]
        return {cwd.relative_to(inside).parts[0] for cwd in cwds if inside in cwd.parents}

    def number_of(self, queue: Queue, pid: int) -> int:
        """The number by which the machine knows a process that knows itself by `pid` in a container of this queue."""
        for process in psutil.process_iter(["cwd"]):
            if f"-{queue.id}-" in (process.info["cwd"] or ""):
                with contextlib.suppress(OSError):
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    own = next((line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:")), "")
                    if own == str(pid):
                        return int(process.pid)
        raise MeasureFailed(f"no container of {queue.name} has a process {pid}")

    # tasks

    def submit(self, queue: Queue, **kwargs: Any) -> str:
        return self.client.enqueue(queue.name, json.dumps(kwargs).encode())

    def finish(self, queue: Queue, last_ids: Sequence[str], seconds: float = 120.0) -> float:
        """Wait until the results of all of a queue's tasks are stored; when that was, by `time.perf_counter()`.

        Tasks run in order, so the last ones are watched: looking at all costs more the more there are. Afterwards
        all are looked at; were one unfinished, the time would be taken when it is.
        """
        deadline = time.monotonic() + seconds
        self.client.task(last_ids[-1], wait=min(60.0, seconds))
        watched: dict[str, Any] = {"limit": 1, "statuses": UNFINISHED}
        while self.client.tasks(task_ids=last_ids[-WATCHED:], **watched).data:
            self._check(deadline, seconds)
        ended = time.perf_counter()
        while self.client.tasks(stub_ids=[queue.id], **watched).data:
            self._check(deadline, seconds)
            ended = time.perf_counter()
        if self.client.tasks(1, stub_ids=[queue.id], statuses=["FAILED", "TIMEOUT", "EXPIRED"]).data:
            raise MeasureFailed(f"a task of {queue.name} failed")
        return ended

    def _check(self, deadline: float, seconds: float) -> None:
        if time.monotonic() > deadline:
            raise MeasureFailed(f"not all tasks were done after {seconds:g} s")
        time.sleep(0.002)

    def warm(self, queue: Queue, count: int = 200) -> None:
        """Have the queue's container there and its code run a few times."""
        ids = [self.submit(queue) for _ in range(count)]
        self.finish(queue, ids)
        self.marks.new()

    @contextlib.contextmanager
    def held(self, queue: Queue) -> Iterator[None]:
        """Both children of the `noop` queue wait at a gate until the block ends; they are idle meanwhile."""
        self.warm(queue, 20)
        gate = self.notes / "gate"
        with gate.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for _ in range(2):
                self.submit(queue, gate=gate.name)
            self.marks.wait(2)
            yield
