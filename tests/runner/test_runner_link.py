"""The link: lost and found again, refused, given up; and how a runner ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from treadle.model.wire import AttemptRef, Beat, Finished, Stop, Work

from .link_server import DEADLINE, Server, wait_until
from .running import Runner, gone

pytestmark = pytest.mark.process

GATED = """
    import os, time
    from pathlib import Path

    def handler(name):
        Path(f"{name}.pid.tmp").write_text(str(os.getpid()))
        Path(f"{name}.pid.tmp").rename(f"{name}.pid")
        while not Path(f"{name}.go").exists():
            time.sleep(0.002)
        return name
"""


def working(runner: Runner, name: str) -> psutil.Process:
    """The process in which the task of this name is waiting."""
    file: Path = runner.code / f"{name}.pid"
    wait_until(file.exists, f"{name} has started")
    return psutil.Process(int(file.read_text()))


def release(runner: Runner, name: str) -> None:
    (runner.code / f"{name}.go").touch()


def test_the_runner_introduces_itself(runner: Runner) -> None:
    """The handshake carries the container's token, Hello its id, and nothing is held at first."""
    link = runner.start("def handler(): pass")
    request = runner.server.requests.get(timeout=DEADLINE)
    assert request.headers["Authorization"] == "Bearer secret-of-the-container"
    assert (link.hello.container_id, link.hello.held) == ("taskqueue-d1-00000001", [])


def test_the_parent_beats_while_user_code_holds_the_interpreter(runner: Runner) -> None:
    """Heartbeats come every few seconds, also while the handler never lets another thread run."""
    link = runner.start("def handler():\n    while True: pass")
    link.work("t1")
    wait_until(lambda: any(isinstance(message, Beat) for message in link.heard), "a heartbeat")


def test_a_lost_link_is_found_again_with_all_that_is_held(runner: Runner) -> None:
    """After a reconnect Hello lists what runs and what is unsettled, and unsettled reports come again."""
    link = runner.start(GATED, config={"workers": 2})
    done, going = link.work("t1", "done"), link.work("t2", "going")
    working(runner, "going")
    release(runner, "done")
    told = link.next(Finished)
    link.close()

    link = runner.server.accept()
    assert link.hello.free == 1
    assert sorted(link.hello.held, key=str) == [done, going]
    again = link.next(Finished)
    assert (again.ref, again.result, again.free) == (done, told.result, False)
    link.settle(done)
    release(runner, "going")
    assert link.next(Finished).ref == going


def test_a_settled_report_is_forgotten(runner: Runner) -> None:
    """What the server has settled is neither held nor sent again."""
    link = runner.start("def handler(n): return n")
    link.run("t1", 1)
    link.run("t2", 2)
    link.close()
    assert runner.server.accept().hello.held in ([], [AttemptRef("t2", 1)])


def test_a_task_that_finishes_without_a_link_is_reported_later(runner: Runner) -> None:
    """Children go on while no server is there; the report comes with the next connection."""
    link = runner.start(GATED)
    ref = link.work("t1", "a")
    working(runner, "a")
    port = runner.server.port
    runner.server.stop()
    release(runner, "a")
    runner.server = Server(port)
    try:
        link = runner.server.accept()
        assert link.hello.held == [ref]
        assert link.next(Finished).result == b'"a"'
    finally:
        runner.server.stop()
        runner.end()


def test_without_a_server_the_runner_ends_after_its_grace(runner: Runner) -> None:
    """When nobody answers for `orphan_grace` seconds, the children are killed and the runner ends."""
    link = runner.start(GATED, orphan_grace=0.5)
    link.work("t1", "a")
    child = working(runner, "a")
    runner.server.stop()
    assert runner.wait() == 5
    assert gone([child])


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refused_handshake_ends_the_runner(runner: Runner, status: int) -> None:
    """A server that does not know the container any more is obeyed at once."""
    runner.server.refuse_with = status
    runner.launch("def handler(): pass")
    assert runner.wait() == 0


def test_a_server_that_is_busy_is_asked_again(runner: Runner) -> None:
    """Any other refusal (a proxy without its server, say) is no answer: the runner tries again."""
    runner.server.refuse_with = 503
    runner.launch("def handler(): return 1")
    runner.server.requests.get(timeout=DEADLINE)
    runner.server.refuse_with = None
    runner.server.accept()


def test_a_link_closed_as_unwanted_ends_the_runner(runner: Runner) -> None:
    """Close code 4003 kills what runs and ends the runner at once."""
    link = runner.start(GATED)
    link.work("t1", "a")
    child = working(runner, "a")
    link.close(4003)
    assert runner.wait() == 0
    assert gone([child])


def test_kill_of_the_parent_leaves_no_process(runner: Runner) -> None:
    """After `kill -9` of the runner its template, children and their tools are gone, even those in other groups."""
    link = runner.start(
        """
        import subprocess, time

        def handler():
            subprocess.Popen(["sleep", "600"], start_new_session=True)
            time.sleep(600)
    """,
        config={"workers": 2},
    )
    link.work("t1")
    link.work("t2")
    wait_until(lambda: sum(p.name() == "sleep" for p in runner.tree()) == 2, "both tools run")
    tree = runner.tree()
    assert len(tree) == 5
    os.kill(runner.process.pid, signal.SIGKILL)
    assert gone(tree)


def test_stop_lets_running_tasks_finish_and_deliver(runner: Runner) -> None:
    """Stop takes no more work, waits for what runs and for its settlement, and exits with 0."""
    link = runner.start(GATED)
    ref = link.work("t1", "a")
    working(runner, "a")
    link.send(Stop(30.0), Work(AttemptRef("t2", 1), b'{"args": ["b"], "kwargs": {}}'))
    release(runner, "a")
    assert link.next(Finished).ref == ref
    assert runner.process.poll() is None
    link.settle(ref)
    assert link.ended()
    assert runner.wait() == 0
    assert not (runner.code / "b.pid").exists()


def test_stop_kills_what_outlasts_its_grace(runner: Runner) -> None:
    """A task that is still running at the end of the grace is killed; the runner's end tells its loss."""
    link = runner.start(GATED)
    link.work("t1", "a")
    child = working(runner, "a")
    link.send(Stop(0.1))
    assert link.ended()
    assert runner.wait() == 0
    assert gone([child])


def test_sigterm_is_a_stop(runner: Runner) -> None:
    """SIGTERM to the whole process group lets the running task finish and deliver."""
    link = runner.start(GATED)
    ref = link.work("t1", "a")
    working(runner, "a")
    os.killpg(runner.process.pid, signal.SIGTERM)
    release(runner, "a")
    assert link.next(Finished).ref == ref
    link.settle(ref)
    assert runner.wait() == 0


def test_an_idle_runner_stops_at_once(runner: Runner) -> None:
    """Without running tasks there is nothing to wait for."""
    link = runner.start("def handler(): pass")
    link.send(Stop(600.0))
    assert runner.wait() == 0


def test_a_runner_without_its_spec_says_what_is_missing(runner: Runner) -> None:
    """A folder without a readable run.msgpack is told in one line."""
    runner.launch_with(b"spoilt")
    assert runner.wait() == 64
    assert "cannot read" in runner.log()
    assert len(runner.log().splitlines()) == 1
