"""The rounds: what goes wrong in each. Every one has a fresh ground, the same load, and the same verdict."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

from . import power, verdict, victims
from .disk import SmallDisk
from .endings import QUEUES, Endings
from .ground import Broken, Ground, How, until
from .link import Link
from .load import WEIGHTS, Load, Receiver

PAUSE = 0.04  # seconds between two kills, on average
FINAL_SECONDS = 150.0  # until all is final; a queue whose containers die at the start rests for 60
KILLS = {"child": 85.0, "runner": 6.0, "template": 3.0, "zygote": 4.0, "server": 2.0}
APART = KILLS | {"agent": 4.0, "server": 2.0}
SLOW = {"child": 10.0, "runner": 1.0}
PAST_LEASE = 17.0  # seconds: a lease is 15
SHORT, LONG = (1.0, 4.0), (PAST_LEASE, PAST_LEASE + 5)  # seconds: absences that are not noticed, and those that are
AWAY = {"frozen": 60.0, "parted": 60.0}  # seconds that a runner may take to hear of a cancelled attempt, where it is away
MANY = 100  # deeds, of which some take as much time as a lease
LEVELS = ("auto", "auto", "auto", "process")

ENDED = {
    "COMPLETE": "complete", "FAILED": "failed", "CANCELLED": "cancelled", "TIMEOUT": "timed out", "EXPIRED": "expired",
}  # fmt: skip

Say = Callable[[str], None]


class Weather:
    """What becomes of a link: a fault for a while, then none for a while, and so on."""

    def __init__(self, link: Link, chance: Random) -> None:
        self.faults = 0
        self._link, self._chance = link, chance
        self._bad = False
        self._until = time.monotonic() + 1.0

    def pass_by(self) -> None:
        if time.monotonic() < self._until:
            return
        self._bad = not self._bad
        if self._bad:
            self.faults += 1
            late = self._chance.uniform(0.01, 0.2)
            self._chance.choice((self._link.cut, self._link.choke, lambda: self._link.slow(late)))()
        else:
            self._link.mend()
        self._until = time.monotonic() + self._chance.choice((0.1, 0.5, 2.0, 4.0))


class Round:
    """One round of one kind. `run` leaves the folder as it was at the end, for the verdict."""

    def __init__(self, kind: str, chance: Random, folder: Path, deeds: int, say: Say) -> None:
        self.kind = kind
        self.kills: Counter[str] = Counter()
        self.facts: Counter[str] = Counter()
        self._chance = chance
        self._deeds = deeds
        self._say = say
        self._stack = ExitStack()
        self._receiver = Receiver()
        self._stack.callback(self._receiver.close)
        self.ground = Ground(folder, self._receiver.url, isolation=self._chance.choice(LEVELS))
        self._killer = victims.Killer(self.ground)
        self.kills = self._killer.count
        self._load: Load | None = None
        self._endings: Endings | None = None

    def run(self) -> list[str]:
        """What was promised and did not hold; of that, there is evidence in `folder / "kept"`."""
        with self._stack:
            self._stack.callback(self.ground.kill_all)
            broken = self._tried()
            if broken:
                self._keep()
            return broken

    def _tried(self) -> list[str]:
        try:
            self._live()
            self._settle()
            self._probe()
            self.ground.stop()
        except Broken as error:
            return [str(error), *self._verdict()]
        return self._verdict() + victims.in_vain(self._killer.tried, self._killer.count)

    def _keep(self) -> None:
        """Copy what tells what happened, as it lies there after a crash: the data folder may be gone in a moment."""
        self.ground.kill_all()
        kept = self.ground.folder / "kept"
        for path in (*self.ground.data.glob("treadle.db*"), *(self.ground.data / "agent").rglob("log")):
            target = kept / path.relative_to(self.ground.data)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def _live(self) -> None:
        faults = {
            "kills": self._kills, "links": self._links, "parted": self._parted, "frozen": self._frozen,
            "power": self._power, "full": self._full,
        }  # fmt: skip
        faults[self.kind]()

    def _begin(self, how: How | None = None) -> Load:
        self.ground.start(how)
        self.ground.deploy(*WEIGHTS, *QUEUES)
        self._load = Load(self.ground, self._receiver, Random(self._chance.random()))
        self._stack.callback(self._load.close)
        self._endings = Endings(self.ground, self._load, Random(self._chance.random()))
        self._stack.callback(self._endings.end)
        return self._load

    # what goes wrong

    def _kill_for(
        self, deeds: int, weights: dict[str, float], pause: float = PAUSE, also: Callable[[], None] = lambda: None
    ) -> None:
        for number, deed in enumerate(victims.plan(self._chance, weights, deeds, pause), 1):
            also()
            threading.Event().wait(deed.wait)
            self._killer.kill(deed.kind, deed.luck)
            self._tell(f"{number} of {deeds} deeds")

    def _tell(self, what: str) -> None:
        assert self._load is not None
        told = len(self._receiver.tasks)
        self._say(f"{what}, {sum(self.kills.values())} kills, {len(self._load.accepted)} accepted, {told} final")

    def _kills(self) -> None:
        """`treadle up`, and kill -9 of everything it is made of."""
        self._begin()
        self._kill_for(self._deeds, KILLS)

    def _links(self) -> None:
        """Server and agent apart; all links through a proxy that is cut, choked and slow, and kills beside it."""
        link = Link(self.ground.port)
        self._stack.callback(link.close)
        self._begin(How(link=link.url, apart=True))
        weather = Weather(link, Random(self._chance.random()))
        self._kill_for(self._deeds, APART, also=weather.pass_by)
        self.facts["link faults"] = weather.faults
        link.mend()

    def _parted(self) -> None:
        """Server and machine do not see each other for longer than a lease, while long tasks go on."""
        link = Link(self.ground.port)
        self._stack.callback(link.close)
        load = self._begin(How(link=link.url, apart=True))
        for _ in range(max(self._deeds // MANY, 1)):
            length = self._chance.choice(LONG)
            long = [{"seconds": self._chance.uniform(2, length + 5)} for _ in range(6)]
            load.submit("patient", long)
            load.submit("copied", long[:2])
            self._kill_for(10, SLOW)
            self._chance.choice((link.cut, link.choke))()
            self.facts["partings"] += 1
            back = time.monotonic() + length
            while time.monotonic() < back:
                self._kill_for(1, SLOW, 2.0)
            link.mend()
            self._kill_for(20, SLOW, 0.2)

    def _frozen(self) -> None:
        """SIGSTOP of runners, past their lease and for less; SIGCONT afterwards. Kills of children go on beside it."""
        self._begin()
        self._kill_for(10, SLOW)
        thaw: dict[int, float] = {}
        self._killer.spared = thaw  # who is stopped is to come back
        for length in self._absences():
            luck = self._chance.random()
            found = [pid for pid in victims.runners(self.ground) if pid not in thaw]
            if found:
                pid = found[int(luck * len(found))]
                self.facts["stopped"] += victims.signal_to(pid, signal.SIGSTOP)
                thaw[pid] = time.monotonic() + length
            self._kill_for(8, SLOW, 0.25)
            self._thaw(thaw, time.monotonic())
        while thaw:
            self._kill_for(4, SLOW, 0.25)
            self._thaw(thaw, time.monotonic())

    def _absences(self) -> list[float]:
        """Seconds for which runners are stopped: as many lengths within the lease as past it."""
        times = max(self._deeds // MANY, 1)
        lengths = self._chance.choices(SHORT, k=times) + self._chance.choices(LONG, k=times)
        self._chance.shuffle(lengths)
        return lengths

    def _thaw(self, thaw: dict[int, float], now: float) -> None:
        for pid in [pid for pid, at in thaw.items() if at <= now]:
            del thaw[pid]
            self.facts["came back"] += victims.signal_to(pid, signal.SIGCONT)

    def _power(self) -> None:
        """The machine dies: all processes are killed, and the store's files hold what a disk might hold of them."""
        load = self._begin(How(power=True))
        for number in range(max(self._deeds // 40, 2)):
            self._kill_for(self._chance.randint(5, 40), SLOW)
            if number % 2 == 0:  # the others fall whenever they fall
                self._wait_for_unsynced()
            self.ground.kill_all()
            self.facts["unsynced writes"] += power.cut(self.ground.data, self._chance)
            self.facts["power cuts"] += 1
            if not verdict.is_whole(self.ground.data / "treadle.db"):
                raise Broken("the database is damaged after a power cut")
            missing = load.accepted.keys() - verdict.read_store(self.ground.data / "treadle.db")[0].keys()
            if missing:
                raise Broken(f"acknowledged and missing after a power cut: {sorted(missing)[:10]}")
            self.ground.start()

    def _wait_for_unsynced(self) -> None:
        """Until a write is on its way to the disk, or for long enough that none can be expected."""
        deadline = time.monotonic() + 5
        while not power.has_unsynced(self.ground.data) and time.monotonic() < deadline:
            threading.Event().wait(0.0005)

    def _full(self) -> None:
        """The disk of the data folder is full again and again, also while the server is killed."""
        disk = SmallDisk(self.ground.data)
        self._stack.callback(disk.close)
        self._begin()
        for _ in range(max(self._deeds // 40, 2)):
            self._kill_for(self._chance.randint(10, 20), SLOW)
            disk.fill(self._chance.choice((0, 0, 4096, 65536)))
            self.facts["times full"] += 1
            self._kill_for(self._chance.randint(10, 20), SLOW)
            if self._chance.random() < 0.5:
                self.ground.kill_server()
                self.kills["server"] += 1
                disk.empty()
                self.ground.start()
            disk.empty()
        self.ground.start_anew()  # each failed start has doubled the rest of its queue

    # how it ends

    def _settle(self) -> None:
        """Nothing goes wrong any more: all that was accepted comes to its end, and its webhook is told."""
        assert self._load is not None and self._endings is not None
        self._endings.end()
        self._load.end()
        file = self.ground.data / "treadle.db"

        def left() -> int:
            rows = verdict.read_store(file)[0].values()
            count = sum(row.status not in verdict.FINAL for row in rows)
            self._tell(f"{count} not final yet")
            return count

        until(lambda: left() == 0, FINAL_SECONDS, "the end of all accepted tasks")

    def _probe(self) -> None:
        """No child is held to be busy in vain: as many tasks as there are children run at once."""
        assert self._load is not None
        for queue, children in (("patient", 6), ("copied", 2)):
            for met in self.ground.shared.glob("met-*"):
                met.unlink()
            ids = self._load.submit(queue, [{"meet": children} for _ in range(children)])
            if len(ids) != children:
                raise Broken(f"the server took no tasks when all was well: {dict(self._load.answers)}")
            for task_id in ids:
                task = until(lambda task_id=task_id: self._ended(task_id), 100, f"the end of {task_id}")
                if task["status"] != "COMPLETE":
                    raise Broken(f"not all children of {queue} came to work: {task['attempts']}")
        live = verdict.live_containers(self.ground.data / "treadle.db")
        until(lambda: len(victims.runners(self.ground)) <= len(live), 10, "the end of runners nobody wants")

    def _ended(self, task_id: str) -> dict[str, object] | None:
        task = self.ground.get(f"/v2/task/{task_id}/", wait=5)
        return task if task["status"] in verdict.FINAL else None

    def _verdict(self) -> list[str]:
        file = self.ground.data / "treadle.db"
        if self._load is None or self._endings is None or not file.exists():
            return ["there was no load"]
        tasks, deliveries, outputs = verdict.read_store(file)
        notes = verdict.notes(self.ground.shared / "ledger")
        books = verdict.Books(
            self._load.accepted, notes, list(self._receiver.told), tasks, deliveries, outputs, self.ground.data / "blob",
            self._endings.asked, self._endings.cancelled, AWAY.get(self.kind, verdict.HEARD),
        )  # fmt: skip
        self._count(books)
        found = [] if verdict.is_whole(file) else ["the database is damaged"]
        if "Traceback" in self.ground.log.read_text():
            found.append("the server's log tells of an error that nobody expected")
        return found + verdict.broken(books)

    def _count(self, books: verdict.Books) -> None:
        states = Counter(row.status for row in books.tasks.values())
        self.facts["accepted"] = len(books.accepted)
        self.facts["attempts"] = sum(row.attempts for row in books.tasks.values())
        self.facts["webhooks"] = len(books.deliveries)
        self.facts.update({name: states[state] for state, name in ENDED.items()})
