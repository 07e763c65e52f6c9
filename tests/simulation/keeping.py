"""What happens to traces of attempts in the simulated world: files are saved, lines printed, webhooks sent, all forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.engine.logs import Keep as KeepLines
from treadle.engine.outputs import SaveOutput
from treadle.engine.retention import Doomed, Keep
from treadle.engine.webhooks import Outcome, Send
from treadle.model.log import Line, Stream
from treadle.model.task import Delivery
from treadle.model.wire import AttemptRef, Lines

from .ledger import KEEP_SECONDS
from .machines import Runner
from .mishaps import Mishaps
from .traces import printed

ANSWERS = [Outcome(status=200), Outcome(status=200), Outcome(status=500), Outcome(status=410), Outcome(error="no")]


class Keeping(Mishaps):
    """What attempts leave behind, by those that run and by those that should not."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self._sends: list[Send] = []  # webhooks on their way
        self._looking = False

    def _some_attempt(self) -> tuple[Runner, AttemptRef] | None:
        """One that runs, an earlier or later one of its task, one of another runner, or one that is long over."""
        runners = self.runners()
        running = [ref for runner in runners for ref in runner.running]
        if not running:
            return None
        runner, ref = self.random.choice(runners), self.random.choice([*running, *self.ledger.begun()[-6:]])
        if runner.running and self.random.random() < 0.5:
            ref = self.random.choice(runner.running)
        if self.random.random() < 0.3:
            ref = AttemptRef(ref.task_id, ref.attempt + self.random.choice([-1, 1]))
        return runner, ref

    def save(self) -> None:
        """An attempt saves an output."""
        if some := self._some_attempt():
            _, ref = some
            key = f"output-{self._next()}"
            self.ask(self.engine.outputs.save, SaveOutput(key, ref.task_id, ref.attempt, "a.txt", 1, f"outputs/{key}"))

    def print_line(self) -> None:
        """An attempt prints a line."""
        if some := self._some_attempt():
            runner, ref = some
            line = Line(self.now, Stream.STDOUT, printed(runner.id, ref.task_id, ref.attempt))
            self.ask(self.engine.logs.keep, KeepLines(runner.id, Lines([line], ref)))

    def deliver(self) -> None:
        """The server looks for webhooks to be sent, or one that it has sent is answered."""
        if self._sends and (self._kind or self.random.random() < 0.6):
            send = self._sends.pop(self.random.randrange(len(self._sends)))
            outcome = ANSWERS[0] if self._kind else self.random.choice(ANSWERS)
            self.ask(self._record, (send.delivery, outcome), self._recorded)
        elif not self._looking:
            self._looking = True
            self.ask(self._due, [send.delivery.id for send in self._sends], self._found)

    def _due(self, now: float, requests: Sequence[list[str]]) -> list[list[Send]]:
        return [self.engine.webhooks.due(now, 8, underway) for underway in requests]

    def _found(self, answer: Any) -> None:
        self._looking = False
        if not isinstance(answer, Exception):
            rows = {row.id: row for row in self.ledger.seen()}
            for send in answer:
                self.ledger.traces.sent(send, rows.get(send.delivery.task_id))
            self._sends += answer

    def _record(self, now: float, requests: Sequence[tuple[Delivery, Outcome]]) -> list[Delivery]:
        record, chance = self.engine.webhooks.record, self.random.random()
        answers = [record(delivery, outcome, now, chance) for delivery, outcome in requests]
        for delivery in answers:
            self.ledger.settles(delivery)
        return answers

    def _recorded(self, answer: Any) -> None:
        if isinstance(answer, Delivery):
            self.ledger.traces.tried(answer)

    def forget(self) -> None:
        """The server forgets tasks and containers that ended some time ago."""
        keep = Keep(KEEP_SECONDS * self.random.choice([1, 1, 10]))
        self.ask(self.engine.retention.walk, keep, self._doomed)
        self.ask(self.engine.retention.forget_containers, keep)

    def _doomed(self, answer: Any) -> None:
        if isinstance(answer, Doomed) and answer.task_seqs:
            self.ask(self.engine.retention.forget, answer)

    def crash_server(self) -> None:
        super().crash_server()
        self._sends.clear()
        self._looking = False
