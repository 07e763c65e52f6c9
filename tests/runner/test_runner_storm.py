"""Kills, cancels, recalls and lost links at random: no attempt runs twice, none is lost, the one that ran is charged."""

from __future__ import annotations

import contextlib
import json
import queue
import random
from collections import Counter
from pathlib import Path

import psutil
import pytest

from treadle.model.wire import AttemptRef, Cancel, Finished, Hello, Ready, Recall, Returned, Work

from .link_server import Link, wait_until
from .running import Runner

pytestmark = pytest.mark.process

STEPS = 150
SOURCE = """
    import os, random, time

    ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def handler(name, seconds):
        os.write(ledger, f"begin {name} {os.getpid()}\\n".encode())
        time.sleep(seconds)
        if seconds > 0.004:
            raise ValueError(name)
        os.write(ledger, f"end {name} {os.getpid()}\\n".encode())
        return name
"""


class Storm:
    """The server's side, which keeps what it was told of each attempt, and does at random what may happen."""

    def __init__(self, runner: Runner, workers: int, seed: int) -> None:
        self.runner = runner
        self.workers = workers
        self.chance = random.Random(seed)
        self.link: Link = runner.start(SOURCE, config={"workers": workers})
        self.free = workers
        self.work: dict[AttemptRef, Work] = {}
        self.open: set[AttemptRef] = set()  # sent, and not answered or cancelled
        self.reports: dict[AttemptRef, Finished] = {}
        self.returned: set[AttemptRef] = set()
        self.cancelled: set[AttemptRef] = set()
        self.kills = 0
        self.reports_at_kill = -1

    @property
    def ledger(self) -> list[list[str]]:
        """What the children wrote: `begin` or `end`, the task, the process."""
        file: Path = self.runner.code / "ledger"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def step(self) -> None:
        """Do one thing, and hear what has been said."""
        things = {self.give: 12, self.cancel: 3, self.recall: 1, self.kill: 2, self.cut: 0.3, self.pause: 4}
        self.chance.choices(list(things), list(things.values()))[0]()
        self.hear(0)

    def give(self) -> None:
        """Send some tasks in one frame, more than the children can run at once."""
        if len(self.open) > 100:
            return
        works = []
        for _ in range(self.chance.randrange(1, 12)):
            name = f"t{len(self.work)}"
            seconds = self.chance.choice([0, 0, 0.001, 0.003, 0.005])
            work = Work(AttemptRef(name, 1), json.dumps({"args": [name, seconds], "kwargs": {}}).encode())
            self.work[work.ref] = work
            works.append(work)
        self.send(works)

    def send(self, works: list[Work]) -> None:
        self.open.update(work.ref for work in works)
        self.free -= len(works)
        self.link.send(*works)

    def cancel(self) -> None:
        """Cancel some that were not reported, old ones and young ones."""
        if self.open:
            refs = self.chance.sample(sorted(self.open, key=str), min(3, len(self.open)))
            self.cancelled.update(refs)
            self.open.difference_update(refs)
            self.link.send(*map(Cancel, refs))

    def recall(self) -> None:
        self.link.send(Recall())

    def pause(self) -> None:
        """Let the children work for a moment."""
        self.hear(self.chance.random() * 0.02)

    def kill(self) -> None:
        """Kill a child that has run a task; not three without one that ends, for then the runner gives up."""
        if len(self.reports) == self.reports_at_kill:
            return
        pids = {int(pid) for _, _, pid in self.ledger[-20:]}
        (template,) = psutil.Process(self.runner.process.pid).children()
        with contextlib.suppress(psutil.NoSuchProcess):
            living = [child for child in template.children() if child.pid in pids]
            if living:
                self.chance.choice(living).kill()
                self.kills += 1
                self.reports_at_kill = len(self.reports)

    def kill_at_work(self) -> None:
        """Kill a child that is certainly in the middle of a task, which the random kills may all have missed."""
        work = Work(AttemptRef("last", 1), b'{"args": ["last", 600], "kwargs": {}}')
        self.work[work.ref] = work
        self.send([work])

        def begun() -> list[int]:
            self.hear(0.01)
            return [int(pid) for word, name, pid in self.ledger if (word, name) == ("begin", "last")]

        (pid,) = wait_until(begun, "the beginning of the last task")
        psutil.Process(pid).kill()
        self.kills += 1

    def settle_down(self) -> None:
        """Hear the runner out until everything is answered and all children are free."""

        def quiet() -> bool:
            self.hear(0.01)
            return not self.open and self.free == self.workers

        wait_until(quiet, f"an answer for each of {len(self.open)}, and {self.workers} free children, not {self.free}")

    def cut(self) -> None:
        """Close the link; what the runner does not hold when it calls again is sent again, as the server does."""
        self.link.close()
        self.link.last_words()  # are lost on the way
        self.link = self.runner.server.accept()
        hello: Hello = self.link.hello
        held = set(hello.held)
        assert len(held) == len(hello.held)
        self.free = hello.free
        unknown = held - self.open - set(self.reports)
        self.link.send(*map(Cancel, sorted(unknown, key=str)))
        self.cancelled |= unknown
        self.settle(sorted(held - self.open, key=str))
        self.send([self.work[ref] for ref in sorted(self.open - held, key=str)])

    def settle(self, refs: list[AttemptRef]) -> None:
        self.link.settle(*refs)

    def hear(self, seconds: float) -> None:
        """Note what the runner says, until it has been silent for so long."""
        done = []
        with contextlib.suppress(queue.Empty):
            while True:
                message = self.link.next(object, max(seconds, 0.0001))
                match message:
                    case Finished(ref):
                        self.free += message.free
                        done.append(ref)
                        if ref in self.cancelled:
                            continue  # they have crossed
                        assert ref not in self.returned
                        self.reports.setdefault(ref, message)
                        self.open.discard(ref)
                    case Returned(refs):
                        self.free += len(refs)
                        self.returned.update(refs)
                        self.open.difference_update(refs)
                    case Ready(free):
                        self.free += free
                    case _:
                        raise AssertionError(message)
        if done:
            self.settle(done)


@pytest.mark.parametrize(("workers", "seed"), [(1, 1), (2, 2), (3, 3)])
def test_a_storm_of_deaths_and_orders_keeps_the_books(runner: Runner, workers: int, seed: int) -> None:
    """Each attempt ends in one way, begins at most once, and a death is charged to what the dead child had begun."""
    storm = Storm(runner, workers, seed)
    for _ in range(STEPS):
        storm.step()
    storm.settle_down()
    storm.kill_at_work()
    storm.settle_down()
    begun = Counter(name for word, name, _ in storm.ledger if word == "begin")
    ended = Counter(name for word, name, _ in storm.ledger if word == "end")
    assert set(begun.values()) == set(ended.values()) == {1}
    assert not {ref.task_id for ref in storm.returned} & set(begun)
    died = [ref for ref, report in storm.reports.items() if report.died is not None]
    assert storm.kills >= len(died) > 0
    for ref, report in storm.reports.items():
        if report.result is not None:
            assert json.loads(report.result) == ref.task_id
            assert ended[ref.task_id] == 1
        if report.raised is not None:
            assert report.raised.message == ref.task_id
            assert begun[ref.task_id] == 1
    never = {ref.task_id for ref in storm.work} - set(begun)
    assert never <= {ref.task_id for ref in (*storm.returned, *storm.cancelled, *died)}
