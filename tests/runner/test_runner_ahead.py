"""Work that lies in a child and has not begun: it runs in order, and comes back from it in every way there is."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from treadle.model.wire import AttemptRef, Cancel, Finished, Ready, Recall, Returned, Stop, Work

from .link_server import Link, wait_until
from .running import Runner, gone

pytestmark = pytest.mark.process

GATED = """
    import os, time
    from pathlib import Path

    def handler(name, gated=False):
        with open("ran", "a") as file:
            file.write(name + "\\n")
        while gated and not Path(f"{name}.go").exists():
            time.sleep(0.002)
        return os.getpid()
"""


def give(link: Link, *names: str, gated: str = "") -> list[AttemptRef]:
    """Send these tasks in one frame; the one named `gated` waits for its file."""
    payloads = [json.dumps({"args": [name, name == gated], "kwargs": {}}).encode() for name in names]
    refs = [AttemptRef(name, 1) for name in names]
    link.send(*map(Work, refs, payloads))
    return refs


def ran(runner: Runner) -> list[str]:
    """The tasks that have begun, in their order."""
    file: Path = runner.code / "ran"
    return file.read_text().split() if file.exists() else []


def hold(runner: Runner, link: Link, *names: str) -> list[AttemptRef]:
    """Have a child run the first of these tasks until it is released, with the others ahead."""
    refs = give(link, *names, gated=names[0])
    wait_until(lambda: names[0] in ran(runner), f"{names[0]} has begun")
    return refs


def release(runner: Runner, name: str) -> None:
    (runner.code / f"{name}.go").touch()


def child_of(runner: Runner) -> psutil.Process:
    """The only child of a runner."""
    (template,) = psutil.Process(runner.process.pid).children()
    (child,) = template.children()
    return child


def results(link: Link, count: int) -> list[AttemptRef]:
    """The attempts of the next reports, which all tell of a result."""
    reports = [link.next(Finished) for _ in range(count)]
    assert all(report.result is not None and report.free for report in reports), reports
    return [report.ref for report in reports]


def test_one_child_runs_what_is_sent_ahead_in_its_order(runner: Runner) -> None:
    """Hundreds of tasks in several frames, some of them large, begin in the order in which they were sent."""
    link = runner.start("def handler(n, blob=''):\n    with open('ran', 'a') as file:\n        print(n, file=file)")
    for first in range(0, 300, 100):
        blobs = ["x" * (40_000 if n % 7 == 0 else 10) for n in range(first, first + 100)]
        payloads = [json.dumps({"args": [first + n, blob], "kwargs": {}}).encode() for n, blob in enumerate(blobs)]
        link.send(*[Work(AttemptRef(f"t{first + n}", 1), payload) for n, payload in enumerate(payloads)])
    assert results(link, 300) == [AttemptRef(f"t{n}", 1) for n in range(300)]
    assert ran(runner) == [str(n) for n in range(300)]


def test_each_task_sent_ahead_has_its_own_environment(runner: Runner) -> None:
    """TASK_ID and TASK_ATTEMPT are those of the running task, also in what it starts."""
    link = runner.start("""
        import subprocess

        def handler():
            return subprocess.run("echo $TASK_ID $TASK_ATTEMPT", shell=True, capture_output=True, text=True).stdout
    """)
    refs = [AttemptRef(f"t{n}", n) for n in range(1, 4)]
    link.send(*[Work(ref, b'{"args": [], "kwargs": {}}') for ref in refs])
    assert [json.loads(link.next(Finished).result or b"") for _ in refs] == ["t1 1\n", "t2 2\n", "t3 3\n"]


def test_a_recall_takes_all_back_that_has_not_begun(runner: Runner) -> None:
    """What lies in the child is returned and never runs; what runs goes on; what is sent later is run."""
    link = runner.start(GATED)
    first, *ahead = hold(runner, link, "a", "b", "c")
    link.send(Recall())
    assert link.next(Returned).refs == ahead
    give(link, "d")
    release(runner, "a")
    assert results(link, 2) == [first, AttemptRef("d", 1)]
    assert ran(runner) == ["a", "d"]


def test_a_cancel_takes_one_from_the_middle(runner: Runner) -> None:
    """A cancelled task that lies in a child never begins; those around it run there in their order."""
    link = runner.start(GATED)
    child = child_of(runner)
    a, b, c, d = hold(runner, link, "a", "b", "c", "d")
    link.send(Cancel(c))
    assert link.next(Ready).free == 1
    release(runner, "a")
    assert results(link, 3) == [a, b, d]
    assert ran(runner) == ["a", "b", "d"]
    assert child.is_running()


def test_a_cancel_of_what_runs_spares_what_is_ahead(runner: Runner) -> None:
    """The child of a cancelled task is killed; the tasks behind it run in the next child, in order, as they were."""
    link = runner.start(GATED)
    child = child_of(runner)
    a, b, c = hold(runner, link, "a", "b", "c")
    link.send(Cancel(a))
    assert gone([child])
    assert link.next(Ready).free == 1
    assert results(link, 2) == [b, c]
    assert ran(runner) == ["a", "b", "c"]


def test_a_death_is_charged_to_the_running_task_alone(runner: Runner) -> None:
    """What had ended before a death is reported with its result, what had not begun runs in the next child."""
    link = runner.start("""
        import os, signal

        def handler(name):
            if name == "c":
                os.kill(os.getpid(), signal.SIGKILL)
    """)
    a, b, c, d, e = give_plain(link, "a", "b", "c", "d", "e")
    assert results(link, 2) == [a, b]
    died = link.next(Finished)
    assert (died.ref, died.died and died.died.status, died.free) == (c, -signal.SIGKILL, False)
    assert link.next(Ready).free == 1
    assert results(link, 2) == [d, e]


def give_plain(link: Link, *names: str) -> list[AttemptRef]:
    refs = [AttemptRef(name, 1) for name in names]
    link.send(*[Work(ref, json.dumps({"args": [ref.task_id], "kwargs": {}}).encode()) for ref in refs])
    return refs


def test_a_timeout_is_charged_to_the_running_task_alone(runner: Runner) -> None:
    """At the deadline the running task is told as timed out; those behind it run in the next child."""
    link = runner.start(GATED, config={"timeout": 1})
    a, b, c = hold(runner, link, "a", "b", "c")
    timed_out = link.next(Finished)
    assert (timed_out.ref, timed_out.timed_out) == (a, True)
    assert link.next(Ready).free == 1
    assert results(link, 2) == [b, c]


def test_a_deadline_counts_from_the_end_of_the_task_before(runner: Runner) -> None:
    """Tasks that lie in one child for longer than the timeout, and each run shorter, all end well."""
    link = runner.start("import time\ndef handler(name):\n    time.sleep(0.6)", config={"timeout": 1})
    refs = give_plain(link, "a", "b", "c")
    assert results(link, 3) == refs


def test_a_child_that_cannot_begin_is_replaced_and_nothing_charged(runner: Runner) -> None:
    """A thread left behind that holds the interpreter keeps a task from beginning: it runs in another child."""
    link = runner.start(
        """
        import ctypes, os, threading
        from pathlib import Path

        def block():
            Path("blocked").touch()
            ctypes.PyDLL(None).sleep(600)

        def handler(name):
            if name == "a":
                threading.Timer(0.2, block).start()
            return os.getpid()
    """,
        config={"timeout": 1},
    )
    pid = link.run("t1", "a").result
    wait_until((runner.code / "blocked").exists, "the thread holds the interpreter")
    report = link.run("t2", "b")
    assert report.result is not None
    assert report.result != pid


def test_an_idle_child_takes_what_another_has_not_begun(runner: Runner) -> None:
    """Nothing waits behind a long task while another child has nothing to do."""
    link = runner.start(GATED, config={"workers": 2})
    first, *others = hold(runner, link, *"abcdefgh")
    assert sorted(results(link, 7), key=str) == others
    release(runner, "a")
    assert results(link, 1) == [first]


def test_a_stop_returns_what_has_not_begun(runner: Runner) -> None:
    """Stop gives back what lies in the child and lets what runs finish."""
    link = runner.start(GATED)
    a, b, c = hold(runner, link, "a", "b", "c")
    link.send(Stop(30.0))
    assert link.next(Returned).refs == [b, c]
    release(runner, "a")
    assert link.next(Finished).ref == a
    link.settle(a)
    assert runner.wait() == 0
    assert ran(runner) == ["a"]


def test_a_new_link_is_told_what_lies_in_children(runner: Runner) -> None:
    """Hello names what runs and what lies behind it, and counts it against the free children; nothing runs twice."""
    link = runner.start(GATED)
    refs = hold(runner, link, "a", "b", "c")
    link.close()
    link = runner.server.accept()
    assert sorted(link.hello.held, key=str) == refs
    assert link.hello.free == 1 - 3
    give(link, "b", "c")
    release(runner, "a")
    assert results(link, 3) == refs
    assert ran(runner) == ["a", "b", "c"]


def test_a_child_killed_between_tasks_loses_nothing(runner: Runner) -> None:
    """Work that was given to a child that is dead already, and not seen as such, runs in the next one."""
    link = runner.start(GATED)
    child = child_of(runner)
    child.suspend()
    refs = give(link, "a", "b")
    assert link.silent(0.1)
    os.kill(child.pid, signal.SIGKILL)
    assert results(link, 2) == refs
    assert ran(runner) == ["a", "b"]


def test_a_child_reports_a_task_before_it_takes_the_next(runner: Runner) -> None:
    """A child that dies while its report is too long for the socket has begun nothing else: one task is charged."""
    link = runner.start("""
        import time
        from pathlib import Path

        def handler(name):
            Path(f"{name}.begun").touch()
            while name == "a" and not Path("a.go").exists():
                time.sleep(0.002)
            Path(f"{name}.done").touch()
            return "x" * (4_000_000 if name == "a" else 1)
    """)
    child, parent = child_of(runner), psutil.Process(runner.process.pid)
    a, b = give_plain(link, "a", "b")
    wait_until((runner.code / "a.begun").exists, "a has begun")
    parent.suspend()
    release(runner, "a")
    wait_until((runner.code / "a.done").exists, "a has ended")
    wait_until(lambda: child.status() == psutil.STATUS_SLEEPING, "the child waits for its parent to read")
    child.kill()
    parent.resume()
    died = link.next(Finished)
    assert died.ref == a
    assert died.died is not None
    assert link.next(Ready).free == 1
    assert results(link, 1) == [b]
