"""Children that end: what is told, what is killed, and that the next child takes over."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from treadle.model.wire import AttemptRef, Cancel, Finished, LoadFailed, Ready

from .link_server import wait_until
from .running import Runner, gone

pytestmark = pytest.mark.process

T = TypeVar("T")

DYING = """
    import ctypes, os, signal

    def handler(how):
        if how == "exit":
            os._exit(3)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "segfault":
            ctypes.string_at(0)
        return os.getpid()
"""
SLEEPING = """
    import os, subprocess, time
    from pathlib import Path

    def handler():
        sleeper = subprocess.Popen(["sleep", "600"])
        Path("started.tmp").write_text(f"{os.getpid()} {sleeper.pid}")
        Path("started.tmp").rename("started")
        time.sleep(600)
"""


def started(runner: Runner) -> list[psutil.Process]:
    """The sleeping handler's process and the `sleep` it started."""
    file = runner.code / "started"
    wait_until(file.exists, "the handler has started")
    processes = [psutil.Process(int(pid)) for pid in file.read_text().split()]
    file.unlink()
    return processes


@pytest.mark.parametrize(("how", "status"), [("exit", 3), ("kill", -signal.SIGKILL), ("segfault", -signal.SIGSEGV)])
def test_a_death_is_seen_at_once_and_another_child_takes_over(runner: Runner, how: str, status: int) -> None:
    """A child that ends in the middle of a task is reported with its status, and a new one is Ready."""
    link = runner.start(DYING)
    pid = link.value("t1", "live")
    finished = link.run("t2", how)
    assert finished.died is not None
    assert (finished.died.status, finished.died.oom_kills, finished.free) == (status, 0, False)
    assert link.next(Ready).free == 1
    assert link.value("t3", "live") != pid


def test_a_death_between_tasks_is_seen_when_the_disk_of_the_log_is_full(runner: Runner, tmp_path: Path) -> None:
    """That it cannot be told in the log file keeps nobody from replacing the child."""
    (tmp_path / "log").symlink_to("/dev/full")
    link = runner.start(DYING)
    pid = int(link.value("t1", "live"))
    os.kill(pid, signal.SIGKILL)
    assert link.prints("a process ended between tasks: killed by signal 9")
    assert link.value("t2", "live") != pid


@pytest.mark.parametrize("words", ["\\4\\0\\0\\0\\xff\\xff\\xff\\xff", "\\xff\\xff\\xff\\xff"])
def test_a_runner_that_does_not_understand_a_child_ends(runner: Runner, words: str) -> None:
    """It cannot know any more what runs, so it holds no tasks: the template takes the children along."""
    link = runner.start(f"""
        import os, stat

        def handler():
            for fd in map(int, os.listdir("/proc/self/fd")):
                try:
                    if stat.S_ISSOCK(os.fstat(fd).st_mode):
                        os.write(fd, b"{words}" * 64)
                except OSError:
                    pass
    """)
    children = runner.tree()
    link.work("t1")
    assert runner.wait() == 1
    assert "Exception in callback" in runner.log()
    assert gone(children)


def test_a_child_killed_from_outside_is_a_death(runner: Runner) -> None:
    """`kill -9` of a working child is seen like any other death, and what the child started goes too."""
    link = runner.start(SLEEPING)
    ref = link.work("t1")
    child, sleeper = started(runner)
    child.kill()
    finished = link.next(Finished)
    assert finished.ref == ref
    assert finished.died is not None
    assert finished.died.status == -signal.SIGKILL
    assert gone([sleeper])


def test_a_child_that_closes_its_socket_counts_as_dead(runner: Runner) -> None:
    """User code that closes all files cannot report any more: it is killed and reported."""
    link = runner.start("import os, time\ndef handler():\n    os.closerange(3, 256)\n    time.sleep(600)")
    finished = link.run("t1")
    assert finished.died is not None
    assert finished.died.status == -signal.SIGKILL


def test_a_timeout_kills_the_whole_group(runner: Runner) -> None:
    """At the deadline the handler and what it started are killed, and the report says timed out."""
    link = runner.start(SLEEPING, config={"timeout": 1})
    ref = link.work("t1")
    processes = started(runner)
    finished = link.next(Finished)
    assert (finished.ref, finished.timed_out, finished.died, finished.free) == (ref, True, None, False)
    assert gone(processes)
    assert link.next(Ready).free == 1


def test_a_task_that_ends_in_time_is_not_killed(runner: Runner) -> None:
    """The deadline of a finished task does not reach the next one."""
    link = runner.start("import time\ndef handler(t):\n    time.sleep(t)\n    return t", config={"timeout": 3})
    assert link.value("t1", 1.6) == 1.6
    assert link.value("t2", 1.6) == 1.6


def test_a_cancel_kills_at_once_and_reports_nothing(runner: Runner) -> None:
    """Cancel kills the handler and what it started; only Ready follows, when the new child is loaded."""
    link = runner.start(SLEEPING)
    ref = link.work("t1")
    processes = started(runner)
    link.send(Cancel(ref))
    assert gone(processes)
    assert link.next(Ready).free == 1


def test_a_cancel_of_a_finished_attempt_does_nothing(runner: Runner) -> None:
    """A Cancel that comes too late leaves the child alone."""
    link = runner.start(DYING)
    pid = link.value("t1", "live")
    link.send(Cancel(AttemptRef("t1", 1)), Cancel(AttemptRef("never", 1)))
    assert link.value("t2", "live") == pid


def test_workers_run_in_parallel(runner: Runner) -> None:
    """Three children run three tasks at the same time: each waits for the other two."""
    link = runner.start(
        """
        import os, time
        from pathlib import Path

        def handler(n):
            Path(f"here-{n}").touch()
            while not all(Path(f"here-{other}").exists() for other in range(3)):
                time.sleep(0.001)
            return os.getpid()
    """,
        config={"workers": 3},
    )
    for n in range(3):
        link.work(f"t{n}", n)
    assert len({link.next(Finished).result for _ in range(3)}) == 3


def test_more_work_than_children_waits_its_turn(runner: Runner) -> None:
    """Work beyond the free children is run in order; each time the child is told to be free, as it was sent work."""
    link = runner.start("def handler(n):\n    return n")
    for n in range(3):
        link.work(f"t{n}", n)
    finished = [link.next(Finished) for _ in range(3)]
    assert [f.result for f in finished] == [b"0", b"1", b"2"]
    assert [f.free for f in finished] == [True, True, True]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "importing 'app' raised ModuleNotFoundError: No module named 'no_such_module'"),
        ("def other(): pass", "module 'app' has no function 'handler'"),
        ("handler = 3", "app:handler is not a function but of type int."),
        ("def handler(:", "importing 'app' raised SyntaxError"),
        ("raise SystemExit(1)", "importing 'app' raised SystemExit: 1"),
    ],
    ids=["import", "missing", "no function", "syntax", "exit"],
)
def test_a_handler_that_cannot_be_loaded_ends_the_runner(runner: Runner, source: str, reason: str) -> None:
    """The reason is told in one line, and the runner ends with exit code 2."""
    runner.launch(source)
    link = runner.server.accept()
    failed = link.next(LoadFailed)
    assert failed.reason.startswith(reason)
    assert "treadle/runner" not in failed.traceback
    assert runner.wait() == 2
    assert runner.last_words() == f"could not load the handler: {failed.reason}\n"


def test_an_on_start_that_raises_ends_the_runner_with_its_traceback(runner: Runner) -> None:
    """A failing `on_start` is a failed load, told with the traceback of user code."""
    runner.launch("""
        class Queue:
            retry_for = ()

            def __call__(self): ...
            def func(self): ...

            def on_start(self):
                raise ValueError("no weights")

        handler = Queue()
    """)
    failed = runner.server.accept().next(LoadFailed)
    assert failed.reason == "on_start of app:handler raised ValueError: no weights"
    assert "in on_start" in failed.traceback
    assert runner.wait() == 2


def test_a_handler_that_dies_while_loading_is_tried_three_times(runner: Runner) -> None:
    """A module that kills its process at import is given up after the third death."""
    runner.launch("import os\nos._exit(7)")
    failed = runner.server.accept().next(LoadFailed)
    assert "while loading the handler, 3 times in a row" in failed.reason
    assert "exit code 7" in failed.reason
    assert runner.wait() == 2


def test_a_child_that_dies_between_tasks_is_replaced(runner: Runner) -> None:
    """A new child takes the place of an idle one that is killed; that is no news, for its place was free already."""
    link = runner.start(DYING)
    pid = link.value("t1", "live")
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    assert gone([process])
    assert link.silent(0.5)
    assert link.value("t2", "live") != pid


def test_an_end_of_the_template_ends_the_container(runner: Runner) -> None:
    """Without its template the runner can make no children: it ends, and leaves nothing behind."""
    link = runner.start(SLEEPING)
    link.work("t1")
    processes = started(runner)
    psutil.Process(runner.process.pid).children()[0].kill()
    assert runner.wait() == 1
    assert gone(processes)


@pytest.fixture
def memory_group(tmp_path: Path) -> Iterator[Path]:
    """A memory cgroup (v1) with a limit of 64 MiB."""
    group = Path(f"/sys/fs/cgroup/memory/treadle-test-{os.getpid()}-{tmp_path.name}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(64 * 2**20))
    except OSError as exc:
        pytest.skip(f"no writable memory cgroup (v1) here: {exc}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
    group.rmdir()


def limited(start: Callable[..., T], group: Path, source: str, **config: Any) -> T:
    return start(
        source,
        config=config,
        procs_files=[str(group / "cgroup.procs")],
        oom_file=str(group / "memory.oom_control"),
        peak_file=str(group / "memory.max_usage_in_bytes"),
        limit=64 * 2**20,
    )


HOG = """
    import os, subprocess, sys

    def handler(how):
        if how == "hog":
            bytearray(200 * 2**20)
        if how == "kill":
            os.kill(os.getpid(), 9)
        if how == "tool":
            subprocess.run([sys.executable, "-c", "bytearray(200 * 2**20)"], check=True)
        return "fine"
"""


def test_an_out_of_memory_kill_is_told_with_its_evidence(memory_group: Path, runner: Runner) -> None:
    """The child over the limit is killed, the report holds counter, peak and limit, and the runner lives on."""
    link = limited(runner.start, memory_group, HOG)
    died = link.run("t1", "hog").died
    assert died is not None
    assert (died.status, died.oom_kills, died.limit) == (-signal.SIGKILL, 1, 64 * 2**20)
    assert 60 * 2**20 < died.peak <= 64 * 2**20
    link.next(Ready)
    assert link.value("t2", "fine") == "fine"


def test_a_kill_is_not_taken_for_out_of_memory(memory_group: Path, runner: Runner) -> None:
    """An out-of-memory kill of a tool that the handler ran is not charged to a later, other kill."""
    link = limited(runner.start, memory_group, HOG)
    raised = link.run("t1", "tool").raised
    assert raised is not None
    assert raised.type == "CalledProcessError"
    died = link.run("t2", "kill").died
    assert died is not None
    assert (died.status, died.oom_kills) == (-signal.SIGKILL, 0)


@pytest.mark.parametrize("checkpoint", [False, True], ids=["worker", "checkpoint"])
def test_a_handler_too_large_to_load_is_told_as_out_of_memory(
    memory_group: Path, runner: Runner, checkpoint: bool
) -> None:
    """A module that takes more memory at import than the limit fails the load, and the reason says so."""
    limited(runner.launch, memory_group, "WEIGHTS = bytearray(200 * 2**20)", checkpoint_enabled=checkpoint)
    failed = runner.server.accept().next(LoadFailed)
    assert failed.reason.endswith('out of memory at 64 MiB; give it more, e.g. memory="128Mi"')
    assert runner.wait() == 2


def test_limits_that_cannot_be_entered_keep_the_runner_from_working(runner: Runner, tmp_path: Path) -> None:
    """Nothing runs outside its limits: a procs file that cannot be written fails the load."""
    runner.launch("def handler(): pass", procs_files=[str(tmp_path / "missing" / "cgroup.procs")])
    link = runner.server.accept()
    assert "limits cannot be entered" in link.next(LoadFailed).reason
    assert runner.wait() == 2
