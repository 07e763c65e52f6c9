"""Workers forked from a checkpoint: loaded once, shared, and the same to their tasks as any others."""

from __future__ import annotations

import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from treadle.model.container import Isolation
from treadle.model.wire import Finished, LoadFailed, Ready

from .boxes import needs, sandbox
from .link_server import Link, wait_until
from .running import Runner, gone

pytestmark = pytest.mark.process

MIB = 2**20
QUEUE = """
    import os, random, sys, time
    from pathlib import Path

    class Queue:
        retry_for = ()

        def on_start(self):
            with Path("starts").open("a") as file:
                file.write(f"{os.getpid()}\\n")
            return load()

        def func(self, what, context):
            return do(what, context.on_start_value)

        def __call__(self): ...

    handler = Queue()
"""
MODEL = (
    QUEUE
    + """
    def load():
        print("loading the weights")
        return os.urandom(200 * 2**20)

    def do(what, weights):
        if what == "meet":
            Path(f"here-{os.getpid()}").touch()
            while len(list(Path().glob("here-*"))) < 4:
                time.sleep(0.001)
        if what == "die":
            os.kill(os.getpid(), 9)
        if what == "sleep":
            time.sleep(600)
        if what == "raise":
            raise ValueError("no")
        if what == "print":
            print("printed by", os.environ["TASK_ID"])
        if what == "draw":
            Path(f"drawn-{os.getpid()}").write_text(str(random.random()))
            while len(list(Path().glob("drawn-*"))) < 4:
                time.sleep(0.001)
            return random.random()
        return [os.getpid(), len(weights), id(weights), sum(weights[:4096])]
"""
)
SMALL = MODEL.replace("os.urandom(200 * 2**20)", "os.urandom(4096)")


def checkpoint(runner: Runner, source: str, *, workers: int = 1, **more: Any) -> Link:
    config = {"workers": workers, "checkpoint_enabled": True, **more.pop("config", {})}
    return runner.start(source, config=config, **more)


def starts(runner: Runner) -> list[int]:
    """The processes that have run `on_start`."""
    return [int(line) for line in (runner.code / "starts").read_text().split()]


def all_of(link: Link, what: str, count: int) -> list[Any]:
    """What `count` workers answer at the same time."""
    import json

    for n in range(count):
        link.work(f"{what}-{n}", what)
    done = [link.next(Finished) for _ in range(count)]
    link.settle(*(finished.ref for finished in done))
    assert all(finished.result is not None for finished in done), done
    return [json.loads(finished.result or b"") for finished in done]


def pss(processes: list[psutil.Process]) -> int:
    """Bytes that these processes have in memory, shared pages divided among those that share them."""
    return sum(process.memory_full_info().pss for process in processes)


def test_four_workers_share_what_on_start_has_loaded_once(runner: Runner) -> None:
    """`on_start` that loads 200 MB runs once; each worker has that very object, and all together hold it once."""
    link = checkpoint(runner, MODEL, workers=4)
    answers = all_of(link, "meet", 4)
    assert len({pid for pid, *_ in answers}) == 4
    assert len({tuple(rest) for _, *rest in answers}) == 1
    assert answers[0][1] == 200 * MIB
    assert len(starts(runner)) == 1
    used = pss([psutil.Process(runner.process.pid), *runner.tree()])
    assert 200 * MIB < used < 300 * MIB, f"{used / MIB:.0f} MiB"


def worked(runner: Runner) -> float:
    """Seconds of processor time that the container has taken, in processes that live or have been reaped."""
    return sum(sum(process.cpu_times()[:4]) for process in [psutil.Process(runner.process.pid), *runner.tree()])


def test_a_killed_worker_is_replaced_in_milliseconds_without_on_start(runner: Runner) -> None:
    """A death, its report, the next worker and a task cost few milliseconds of processor time, with 200 MB loaded.

    Nearly all of it is between the death and the next worker's Ready. The time by the clock depends on what else
    the machine does.
    """
    link = checkpoint(runner, MODEL)
    before, took = worked(runner), []
    for n in range(20):
        died = link.run(f"t{n}", "die").died
        told = time.perf_counter()
        assert died is not None
        assert died.status == -signal.SIGKILL
        link.next(Ready)
        took.append(time.perf_counter() - told)
    each = (worked(runner) - before) / 20
    print(f"{each * 1000:.1f} ms of processor time; by the clock, ms:", [round(t * 1000, 1) for t in sorted(took)])
    assert each < 0.04  # with 200 MB in small pages: 0.1
    assert len(starts(runner)) == 1
    assert link.value("last", "live")[1] == 200 * MIB


def test_workers_of_a_checkpoint_are_told_apart_killed_and_timed_out_like_others(runner: Runner) -> None:
    """Exceptions, prints and deadlines are those of any worker."""
    link = checkpoint(runner, SMALL, config={"timeout": 1})
    raised = link.run("t1", "raise").raised
    assert raised is not None
    assert (raised.type, raised.message) == ("ValueError", "no")
    ref = link.work("t2", "print")
    link.next(Finished)
    assert link.prints("printed by t2", ref)
    assert link.prints("loading the weights")
    slept = link.run("t3", "sleep")
    assert slept.timed_out
    link.next(Ready)
    assert len(starts(runner)) == 1


def test_workers_draw_different_random_numbers(runner: Runner) -> None:
    """Copies of one process do not go on with one sequence of random numbers."""
    link = checkpoint(runner, SMALL, workers=4)
    assert len(set(all_of(link, "draw", 4))) == 4


@pytest.mark.skipif(not find_spec("numpy"), reason="numpy is not installed here")
def test_numpys_generator_is_seeded_anew_in_each_worker(runner: Runner) -> None:
    """So is the global generator of numpy, where it is imported."""
    source = SMALL.replace("import os, random", "import numpy, os, random").replace(
        "random.random()", "numpy.random.rand()"
    )
    link = checkpoint(runner, source, workers=4)
    assert len(set(all_of(link, "draw", 4))) == 4
    assert len(starts(runner)) == 1


def test_an_async_on_start_is_run_once_and_async_handlers_work(runner: Runner) -> None:
    """The event loop of `on_start` is closed before the fork, and each worker makes one of its own."""
    source = (
        QUEUE.replace("def on_start", "async def on_start").replace("return load()", "return await load()")
        + """
    import asyncio

    async def load():
        await asyncio.sleep(0)
        return "loaded"

    async def do(what, value):
        await asyncio.sleep(0.001)
        return [value, os.getpid(), *os.listdir("/proc/self/fd")]
"""
    )
    link = checkpoint(runner, source, workers=2)
    assert link.value("t1", "")[0] == "loaded"
    assert link.value("t2", "")[0] == "loaded"
    assert len(starts(runner)) == 1


@pytest.mark.parametrize(
    ("leaves", "reason"),
    [
        (
            "import threading; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
            "has left 1 thread running",
        ),
        (
            "import asyncio; globals()['task'] = asyncio.create_task(asyncio.sleep(600))",
            "has left 1 asyncio task unfinished",
        ),
    ],
    ids=["thread", "asyncio"],
)
def test_what_cannot_be_forked_is_loaded_by_each_worker(runner: Runner, leaves: str, reason: str) -> None:
    """Threads and unfinished coroutines would not be in a copy: each worker runs `on_start` itself, and it is said why."""
    source = (
        QUEUE.replace("def on_start", "async def on_start")
        + f"""
    def load():
        {leaves}
        return "loaded"

    def do(what, value):
        if what == "die":
            os.kill(os.getpid(), 9)
        return [value, os.getpid()]
"""
    )
    link = checkpoint(runner, source, workers=2)
    assert link.value("t1", "")[0] == "loaded"
    assert len(starts(runner)) == 2
    assert link.prints(reason)
    link.run("t2", "die")
    link.next(Ready)
    assert len(set(starts(runner))) == 3


def test_a_failing_on_start_ends_the_runner_with_its_traceback(runner: Runner) -> None:
    """As without a checkpoint: told once, with the traceback of user code, and the exit code says so."""
    runner.launch(
        QUEUE + "\n    def load():\n        raise ValueError('no weights')",
        config={"workers": 4, "checkpoint_enabled": True},
    )
    failed = runner.server.accept().next(LoadFailed)
    assert failed.reason == "on_start of app:handler raised ValueError: no weights"
    assert "in load" in failed.traceback
    assert runner.wait() == 2
    assert len(starts(runner)) == 1


def test_a_module_that_dies_at_import_is_given_up_after_three_times(runner: Runner) -> None:
    """A checkpoint that cannot come to be is not tried for ever."""
    runner.launch("import os\nos._exit(7)", config={"workers": 4, "checkpoint_enabled": True})
    failed = runner.server.accept().next(LoadFailed)
    assert "while loading the handler, 3 times in a row" in failed.reason
    assert "exit code 7" in failed.reason
    assert runner.wait() == 2


def test_workers_outlive_their_checkpoint_and_a_new_one_is_made(runner: Runner) -> None:
    """`kill -9` of the checkpoint: nobody who works notices, and later workers come from one that has loaded again."""
    link = checkpoint(runner, SMALL)
    pid = link.value("t1", "live")[0]
    (first,) = starts(runner)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(starts(runner)) == 2, "a second checkpoint")
    assert link.value("t2", "live")[0] == pid
    link.run("t3", "die")
    link.next(Ready)
    assert link.value("t4", "live")[0] not in {pid, *starts(runner)}
    assert len(starts(runner)) == 2


@pytest.mark.parametrize("what", ["parent", "template"])
def test_nothing_is_left_when_the_runner_is_killed(runner: Runner, what: str) -> None:
    """`kill -9` of the runner's parent or template ends the checkpoint and its workers at once."""
    link = checkpoint(runner, SMALL, workers=2)
    link.work("t1", "sleep")
    tree = runner.tree()
    assert len(tree) == 4
    victim = runner.process if what == "parent" else psutil.Process(runner.process.pid).children()[0]
    victim.kill()
    assert gone(tree)


def test_nothing_is_left_when_the_runner_is_killed_while_on_start_runs(runner: Runner, tmp_path: Path) -> None:
    """A load that hangs does not keep anything alive."""
    hanging = QUEUE + "\n    def load():\n        time.sleep(600)"
    runner.launch(hanging, config={"checkpoint_enabled": True})
    wait_until((runner.code / "starts").exists, "on_start")
    tree = runner.tree()
    runner.process.kill()
    assert gone(tree)


@pytest.mark.parametrize(
    "level",
    [pytest.param(one, marks=needs(one), id=one.name.lower()) for one in (Isolation.LANDLOCK, Isolation.NAMESPACES)],
)
def test_a_checkpoint_is_shut_off_as_workers_are(runner: Runner, tmp_path: Path, level: Isolation) -> None:
    """At each isolation level workers are copies too, replaced and killed with the runner."""
    runner.code = tmp_path / "code"
    link = checkpoint(runner, SMALL, workers=2, sandbox=sandbox(tmp_path, level))
    link.run("t1", "die")
    link.next(Ready)
    assert link.value("t2", "live")[1] == 4096
    assert len(starts(runner)) == 1
    tree = runner.tree()
    runner.process.kill()
    assert gone(tree)
