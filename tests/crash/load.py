"""The load: threads that submit tasks and write down each id they were given, and who receives the webhooks."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import NamedTuple

from .ground import Ground

UNFINISHED = 120  # tasks accepted and not told of, beyond which the load waits
WEIGHTS = {"patient": 10, "brief": 3, "once": 2, "copied": 4}


class Told(NamedTuple):
    """A webhook as it came."""

    task: str
    status: str
    message: str


class Receiver:
    """Takes webhooks on loopback."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.tasks: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                told = Told(*(self.headers[name] for name in ("X-Task-ID", "X-Task-Status", "webhook-id")))
                outer.told.append(told)
                outer.tasks.add(told.task)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Load:
    """`accepted`: the queue and number of each task whose id was answered with. They are also in the file `accepted`."""

    def __init__(self, ground: Ground, receiver: Receiver, chance: Random, threads: int = 2) -> None:
        self.accepted: dict[str, tuple[str, int]] = {}
        self.answers: Counter[str] = Counter()
        self._ground, self._receiver = ground, receiver
        self._file = (ground.folder / "accepted").open("a")
        self._lock = threading.Lock()
        self._numbers = 0
        self._over = threading.Event()
        seeds = [chance.random() for _ in range(threads)]
        self._threads = [threading.Thread(target=self._run, args=(Random(seed),), daemon=True) for seed in seeds]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def close(self) -> None:
        self.end()
        self._file.close()

    def submit(self, queue: str, bodies: list[dict[str, object]]) -> list[str]:
        """Submit tasks of one queue; the ids that came back, none if no answer did. Each gets a number of its own."""
        with self._lock:
            first = self._numbers
            self._numbers += len(bodies)
        numbered = [body | {"number": number} for number, body in enumerate(bodies, first)]
        ids = self._post(f"/taskqueue/{queue}", numbered)
        with self._lock:
            for number, task_id in enumerate(ids, first):
                self.accepted[task_id] = queue, number
                self._file.write(f"{task_id} {queue} {number}\n")
            self._file.flush()
        return ids

    def _post(self, path: str, bodies: list[dict[str, object]]) -> list[str]:
        batch = len(bodies) > 1
        connection = http.client.HTTPConnection("127.0.0.1", self._ground.port, timeout=30)
        headers = {"Authorization": f"Bearer {self._ground.token}", "Content-Type": "application/json"}
        try:
            connection.request(
                "POST", path + "/batch" * batch, json.dumps(bodies if batch else bodies[0]), headers
            )
            answer = connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.answers[type(error).__name__] += 1
            return []
        finally:
            connection.close()
        self.answers[str(answer.status)] += 1
        if answer.status != 200:
            return []
        return list(said["task_ids"]) if batch else [said["task_id"]]

    def untold(self, tasks: list[str]) -> list[str]:
        """Those of them whose end has not been told yet."""
        return [task for task in tasks if task not in self._receiver.tasks]

    def unfinished(self) -> int:
        return len(self.accepted.keys() - self._receiver.tasks)

    def _run(self, chance: Random) -> None:
        while not self._over.is_set():
            if self.unfinished() > UNFINISHED:
                self._over.wait(0.02)
                continue
            (queue,) = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
            count = chance.choice((1, 1, 1, 1, 8))
            if not self.submit(queue, [_body(chance) for _ in range(count)]):
                self._over.wait(0.05)


def _body(chance: Random) -> dict[str, object]:
    """Mostly short; a few long enough to be at work when anything dies; a few save an output."""
    seconds = chance.choice((0.0, 0.0, 0.002, 0.01, 0.05, 0.3))
    return {"seconds": seconds, "save": chance.random() < 0.03}
