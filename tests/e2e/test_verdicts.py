"""What is told of each way in which a task's process can end, by every kind of memory limit that this machine gives."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from notes import ledger, open_gate
from place import Place, process_of, until

pytestmark = pytest.mark.e2e

ADVICE = r'Give it more, e\.g\. memory="\d+Mi"'
MOST = {"probed": 200, "watchdog": 1024 + 128}  # MiB at a limit of 128: the watchdog runs as often as the machine lets it
QUEUE = """
    import ctypes, os, subprocess, sys
    from notes import gate, note
    from treadle import task_queue

    FILL = "held = [b'x' * 2**20 for _ in range(1024)]"

    def fill_in_another_process(check=False):
        return subprocess.run([sys.executable, "-c", FILL], check=check).returncode

    @task_queue(memory=128, workers=3, retries=0)
    def handler(folder, how):
        note(folder, how)
        match how:
            case "fill": exec(FILL)
            case "wait": gate(folder)
            case "tool, then exit 0": fill_in_another_process(); os._exit(0)
            case "tool, checked": fill_in_another_process(check=True)
            case "tool, ignored": return fill_in_another_process()
            case "segfault": ctypes.string_at(0)
            case "MemoryError": bytearray(1 << 60)
            case "sys.exit(137)": sys.exit(137)
            case "os._exit(137)": os._exit(137)
        return "well"
"""


@pytest.fixture(scope="module", params=["probed", "watchdog"])
def held(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server with the queue `q`, whose containers are held by the best this machine gives, and by the watchdog."""
    place = Place(tmp_path_factory.mktemp("held"))
    try:
        place.share_notes()
        place.up(env={"TREADLE_LIMITS": "auto" if request.param == "probed" else "watchdog"}).deploy(QUEUE)
        yield place
        assert place.stop() == 0, place.log.read_text()
        assert place.processes() == []
    finally:
        place.clean_up()


def limits_of(place: Place) -> str:
    return "watchdog" if "by=watchdog" in place.log.read_text() else "probed"


def verdict(place: Place, folder: Path, how: str, name: str = "q") -> dict[str, Any]:
    """The only attempt of a task of its own, once it has ended."""
    task = place.ended(place.submit(name, folder=str(folder), how=how))
    assert len(task["attempts"]) == 1
    return dict(task["attempts"][0])


def assert_out_of_memory(place: Place, attempt: dict[str, Any], where: str = "") -> None:
    assert attempt["failure_kind"] == "oom", attempt["failure_reason"]
    told = re.fullmatch(rf"out of memory{where}: peak (\d+) MiB at a limit of 128 MiB\. {ADVICE}", attempt["failure_reason"])
    assert told, attempt["failure_reason"]
    assert 120 <= int(told[1]) < MOST[limits_of(place)]


def test_of_three_workers_only_the_one_that_takes_too_much_dies(held: Place, tmp_path: Path) -> None:
    """The other two finish their tasks; the reason names peak, limit and a value that may do."""
    others = [held.submit("q", folder=str(tmp_path), how="wait") for _ in range(2)]
    until(lambda: len(ledger(tmp_path, "wait")) == 2, what="two at work")
    try:
        assert_out_of_memory(held, verdict(held, tmp_path, "fill"))
    finally:
        open_gate(tmp_path)
    for task_id in others:
        task = held.ended(task_id)
        assert (task["status"], len(task["attempts"])) == ("COMPLETE", 1)
    containers = {line["container"] for line in ledger(tmp_path)}
    assert len(containers) == 1, "all three were in one container"


def test_memory_taken_by_a_process_that_the_task_started_is_told_when_the_task_ends_itself(
    held: Place, tmp_path: Path
) -> None:
    """Exit code 0 is no success, and the counter says what happened."""
    attempt = verdict(held, tmp_path, "tool, then exit 0")
    assert_out_of_memory(held, attempt, " in a process that the task had started")


def test_an_exception_for_a_started_process_says_that_it_lacked_memory(held: Place, tmp_path: Path) -> None:
    """It stays the exception that user code raised, for `retry_for`."""
    attempt = verdict(held, tmp_path, "tool, checked")
    assert attempt["failure_kind"] == "exception"
    assert attempt["failure_reason"].startswith("CalledProcessError: ")
    assert "(out of memory in a process that the task had started: peak " in attempt["failure_reason"]
    assert re.search(ADVICE, attempt["failure_reason"])


def test_a_result_stands_also_when_a_started_process_lacked_memory(held: Place, tmp_path: Path) -> None:
    """User code has seen the death and gone on; no later death is blamed on that kill."""
    task = held.ended(held.submit("q", folder=str(tmp_path), how="tool, ignored"))
    assert (task["status"], task["result"]) == ("COMPLETE", -signal.SIGKILL)
    waiting = held.submit("q", folder=str(tmp_path), how="wait")
    line = until(lambda: ledger(tmp_path, "wait"))[0]
    child = process_of(line["container"], line["pid"])
    assert child is not None
    child.kill()
    attempt = held.ended(waiting)["attempts"][0]
    assert attempt["failure_reason"] == "the process was killed by signal 9 (SIGKILL)"


@pytest.mark.parametrize(
    ("how", "kind", "reason"),
    [
        ("segfault", "signal", "the process was killed by signal 11 (SIGSEGV)"),
        ("MemoryError", "exception", "MemoryError"),
        ("sys.exit(137)", "exception", "SystemExit: 137"),
        ("os._exit(137)", "exit", "the process ended itself with exit code 137 during the task"),
    ],
)
def test_what_is_not_a_kill_for_memory_is_not_told_as_one(
    held: Place, tmp_path: Path, how: str, kind: str, reason: str
) -> None:
    """Only the counter of kills is evidence."""
    attempt = verdict(held, tmp_path, how)
    assert (attempt["failure_kind"], attempt["failure_reason"]) == (kind, reason)


def test_a_full_dev_shm_is_memory_of_the_container(held: Place, tmp_path: Path) -> None:
    """Files there count, though no process has them in its own memory."""
    file = Path(f"/dev/shm/treadle-test-{os.getpid()}-{tmp_path.name}")
    held.deploy(
        f"""
        from treadle import task_queue

        @task_queue(memory=128, retries=0)
        def handler(folder, how):
            with open({str(file)!r}, "wb") as shared:
                for _ in range(1024):
                    shared.write(b"x" * 2**20)
        """,
        name="shm",
    )
    try:
        assert_out_of_memory(held, verdict(held, tmp_path, "", "shm"))
    finally:
        file.unlink(missing_ok=True)


def test_a_fork_bomb_harms_nobody_else(held: Place, tmp_path: Path) -> None:
    """It comes to its container's end of processes; meanwhile and afterwards other queues run as before."""
    held.deploy(
        """
        import os, signal
        from treadle import task_queue

        @task_queue(memory=1024, retries=0)
        def handler(folder, how):
            for _ in range(3000):
                if os.fork() == 0:
                    signal.pause()
        """,
        name="bomb",
    )
    bomb = held.submit("bomb", folder=str(tmp_path), how="")
    held.running(bomb)
    for _ in range(5):
        assert held.ended(held.submit("q", folder=str(tmp_path), how="nothing"))["result"] == "well"
    attempt = held.ended(bomb)["attempts"][0]
    assert attempt["failure_kind"] in {"exception", "signal", "lost"}, attempt["failure_reason"]
    assert held.ended(held.submit("q", folder=str(tmp_path), how="nothing"))["result"] == "well"
