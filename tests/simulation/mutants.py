"""Deliberate bugs, each of which the simulation must catch: `make sim-mutants`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SEEDS = 3000  # at most, for each
QUICK_SEEDS = 300  # at most, for those that the tests plant


class Mutant(NamedTuple):
    """What is broken, and the change to the code that breaks it."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant("a report is believed whatever its attempt", "engine/queue.py",
           "return task if task.attempts == ref.attempt and", "return task if"),
    Mutant("a report is believed from any container", "engine/queue.py",
           "ref.attempt and task.container_id == container_id else", "ref.attempt else"),
    Mutant("one attempt too many", "rules/retry.py", "attempts > retries", "attempts > retries + 1"),
    Mutant("a failed task can still be cancelled", "rules/lifecycle.py",
           "(S.PENDING, Event.CANCEL): Row(S.CANCELLED),",
           "(S.PENDING, Event.CANCEL): Row(S.CANCELLED), (S.FAILED, Event.CANCEL): Row(S.CANCELLED),"),
    Mutant("no webhook for an expired task", "rules/lifecycle.py",
           "notify=row.final)", "notify=row.final and row.to is not S.EXPIRED)"),
    Mutant("a child whose task raised is not counted free", "engine/queue.py",
           "+ report.finished.free", "+ (report.finished.free and report.finished.raised is None)"),
    Mutant("a task that will be retried is still counted as running", "engine/queue.py",
           "- was_running\n", "- (was_running and task.status is not TaskStatus.RETRY)\n"),
    Mutant("a rollback leaves the hints as they are", "engine/hints.py", "self._undo.pop()()", "self._undo.pop()"),
    Mutant("a rollback leaves the effects as they are", "engine/effects.py", "del self._effects[mark:]", "del self._effects[:0]"),
    Mutant("a lost container keeps one task", "engine/queue.py",
           "for task in self._store.running_in(container_id):\n            config",
           "for task in self._store.running_in(container_id)[1:]:\n            config"),
    Mutant("what never reached the runner is not sent again", "engine/queue.py",
           "for task in missing:", "for task in missing[1:]:"),
    Mutant("what the runner should have dropped is left with it", "engine/queue.py", "        for ref in stale:\n", "        for ref in stale[1:]:\n"),
    Mutant("an expired task is run", "store/sql.py", "OR task.expires_at > ?2)", "OR task.expires_at > ?2 - 100)"),
    Mutant("a delayed task is run too early", "store/sql.py", "task.due <= ?2", "task.due <= ?2 + 3"),
    Mutant("what is remembered of a task outlives its attempt", "engine/queue.py",
           "self._hints.running.forget(change.task.id)", "pass"),
    Mutant("what an earlier link says of free children is counted too", "engine/hints.py",
           "if deployment_id is None or self._link.get(container_id) != link:\n            return\n        self._change(deployment_id, container_id, link, count)",
           "if deployment_id is None:\n            return\n        self._change(deployment_id, container_id, self._link[container_id], count)"),
    Mutant("nobody wakes for a delayed task", "engine/queue.py", "if len(changes) < room:", "if len(changes) > room:"),
    Mutant("a stopping container is given work", "engine/fleet.py",
           "self._hints.slots.detach(container.id)\n", "pass\n"),
    Mutant("an attempt is not counted", "rules/lifecycle.py", "attempts=task.attempts + 1, container_id", "attempts=max(task.attempts, 1), container_id"),
    Mutant("memory is given out while it is still held", "rules/sharing.py",
           "machine.leaving_memory += holding.config.memory", "machine.memory -= holding.config.memory"),
    Mutant("a device is given out twice in one look", "rules/sharing.py",
           "        machine.gpus.update(gpus)\n", "        pass\n"),
    Mutant("a device goes on while its last process lives", "agent/reconcile.py",
           "if one.state is not State.EXITED for", "if one.state is State.RUNNING for"),
    Mutant("an interrupted attempt is counted", "rules/lifecycle.py",
           "if failure.kind is FailureKind.INTERRUPTED and config.retries:", "if failure.kind is FailureKind.INTERRUPTED and False:"),
    Mutant("an interrupted attempt is repeated whatever retries=0 says", "rules/lifecycle.py",
           "if failure.kind is FailureKind.INTERRUPTED and config.retries:", "if failure.kind is FailureKind.INTERRUPTED:"),
    Mutant("what waits in a deleted deployment waits for ever", "engine/switch.py",
           "if deployment is not None and deployment.deleted_at is not None:", "if False:"),
    Mutant("a late hello counts", "engine/hints.py", "return self._link.get(container_id, link) > link", "return False"),
    Mutant("an output of any attempt is kept", "store/sql.py",
           "AND task.status = 'RUNNING' AND task.attempts = ?3", "AND task.status = 'RUNNING'"),
    Mutant("an output is kept after the end", "store/sql.py",
           "WHERE task.id = ?2 AND task.status = 'RUNNING' AND task.attempts = ?3", "WHERE task.id = ?2 AND task.attempts = ?3"),
    Mutant("lines of any attempt are kept", "engine/logs.py",
           "task = self._running(ref, container_id)", "task = self._store.task(ref.task_id)"),
    Mutant("a webhook that was taken is sent again", "store/sql.py",
           "WHERE delivery.status = 'PENDING' AND delivery.due <= ?", "WHERE delivery.status <> 'FAILED' AND delivery.due <= ?"),
    Mutant("a task is forgotten before its webhook is sent", "store/sql.py",
           "delivery.task_seq = task.seq AND delivery.status = 'PENDING')", "delivery.task_seq = task.seq AND FALSE)"),
    Mutant("a task is forgotten too early", "engine/retention.py", "self._walk(now - keep.seconds)", "self._walk(now)"),
    Mutant("links of a stopping runner are not told apart", "engine/fleet.py",
           "self._hints.slots.link(container.id, link)", "pass"),
    Mutant("what is given back leaves no free child", "engine/queue.py",
           "self._hints.slots.give(given.container_id, len(given.refs), given.link, now)", "pass"),
    Mutant("of a batch that is refused a part is taken", "engine/queue.py",
           "                answers.append(refusal)\n            else:\n",
           "                answers.append(refusal)\n                rows += self._accept(batch[0].deployment, batch[:fitting], now)\n            else:\n"),
    Mutant("a silent container's tasks run elsewhere before it is killed", "engine/fleet.py",
           "        if silent or condemned or not reachable:\n", "        if True:\n"),
    Mutant("a kill that was not written counts", "engine/roster.py",
           "self._journal.put(self.condemned, container_id, None)", "self.condemned[container_id] = None"),
    Mutant("a version that was not written stands", "engine/scaler.py",
           "self._hints.journal.note(lambda: self._watch_again(standing, kept))", "pass"),
    Mutant("a version stands until a new one is switched", "engine/switch.py",
           "for made in answers if isinstance(made, NewDeployment)]", "for made in answers if isinstance(made, Which)]"),
    Mutant("no extra lease after a pause", "engine/fleet.py", "PAUSE = 5.0", "PAUSE = 1e18"),
    Mutant("a heartbeat that cannot be written is not heard", "engine/fleet.py",
           "and abs(now - heard) < LEASE_SECONDS", "and False"),
    Mutant("a cancelled task goes on in its child", "engine/queue.py", "ToRunner(attempt.container_id, Cancel(ref))", "ToRunner('', Cancel(ref))"),
)  # fmt: skip


def broken(mutant: Mutant) -> str:
    """The text of the file with the bug in it.

    Raises:
        LookupError: the code has changed, and the bug has nowhere to go.
    """
    text = (ROOT / "src/treadle" / mutant.file).read_text()
    if mutant.old not in text:
        raise LookupError(f"{mutant.name}: {mutant.file} has no {mutant.old!r} any more; write the mutant anew.")
    return text.replace(mutant.old, mutant.new)


def caught(mutant: Mutant, seeds: int = SEEDS) -> str | None:
    """The promise that the bug broke, or None if no seed has shown it."""
    with tempfile.TemporaryDirectory(prefix="treadle-mutant-") as name:
        source = Path(name, "src")
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        (source / "treadle" / mutant.file).write_text(broken(mutant))
        environ = os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "simulation.campaign", "--seeds", str(seeds), "--no-shrink"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = done.stdout.splitlines()
    if len(lines) < 2 or not lines[-1].startswith("Run it again"):
        raise RuntimeError(f"{mutant.name}: the simulation did not run:\n{done.stdout}{done.stderr}")
    return f"{lines[-2]} (after {lines[0].partition(' of ')[0]})"


QUICK = (
    "one attempt too many", "no webhook for an expired task", "a child whose task raised is not counted free",
    "a task that will be retried is still counted as running", "a rollback leaves the hints as they are",
    "a lost container keeps one task", "lines of any attempt are kept", "a webhook that was taken is sent again",
    "of a batch that is refused a part is taken", "no extra lease after a pause", "a task is forgotten too early",
    "a task is forgotten before its webhook is sent",
)  # fmt: skip


def of_the_day(day: int) -> list[Mutant]:
    """A few of those that are found within a few seeds; others on another day."""
    quick = [mutant for mutant in MUTANTS if mutant.name in QUICK]
    return [quick[(3 * day + n) % len(quick)] for n in range(3)]


def main() -> int:
    """Those whose names have what is asked for in them, or all."""
    escaped = 0
    chosen = [mutant for mutant in MUTANTS if any(word in mutant.name for word in sys.argv[1:] or [""])]
    for mutant in chosen:
        began = time.monotonic()
        by = caught(mutant)
        escaped += by is None
        said = f"caught by: {by}" if by else f"NOT CAUGHT in {SEEDS} seeds"
        print(f"{mutant.name:60} {said} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(chosen) - escaped} of {len(chosen)} bugs caught")
    return bool(escaped)


if __name__ == "__main__":
    sys.exit(main())
