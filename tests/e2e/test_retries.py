"""Failures of every kind: seen at once, told with their reason, retried as often as asked, and harmless to others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from notes import ledger, open_gate
from place import Place, process_of, until

pytestmark = pytest.mark.e2e

AT_ONCE = 12.0  # seconds; no lease has run out within them, whatever a busy machine takes besides


@pytest.fixture(scope="module", autouse=True)
def _notes(place: Place) -> None:
    place.share_notes()


@pytest.fixture(params=["probed", "watchdog"])
def limited(request: pytest.FixtureRequest, own_place: Place) -> Iterator[Place]:
    """A server whose containers are held by what the machine gives, and one whose are held by the watchdog."""
    if request.param == "probed":
        place: Place = request.getfixturevalue("place")
        assert held_by(place) in {"cgroup2", "cgroup1", "watchdog"}
        yield place
        return
    own_place.share_notes()
    own_place.up(env={"TREADLE_LIMITS": "watchdog"})
    assert held_by(own_place) == "watchdog"
    yield own_place
    assert own_place.stop() == 0


def held_by(place: Place) -> str:
    """What holds the memory of this server's containers, as its log says."""
    line = until(lambda: [x for x in place.log.read_text().splitlines() if "memory of containers is held" in x])[-1]
    return str(line.split("by=")[1].split()[0])


def unix(time_of: str) -> float:
    return datetime.fromisoformat(time_of).timestamp()


def kinds(task: dict[str, Any]) -> list[str]:
    return [attempt["failure_kind"] for attempt in task["attempts"]]


def statuses(task: dict[str, Any]) -> list[str]:
    return [attempt["status"] for attempt in task["attempts"]]


def gone(line: dict[str, Any], which: str = "pid") -> bool:
    """Whether the process with the number in this line of a ledger has ended."""
    return process_of(line["container"], line[which]) is None


# exceptions


def test_a_handler_that_always_raises_runs_once_and_then_as_often_as_retries_says(place: Place, tmp_path: Path) -> None:
    """With the default retries=3 there are four attempts, each with its reason and traceback; then FAILED."""
    place.deploy(
        """
        from notes import note
        from treadle import TaskPolicy, task_queue

        @task_queue(task_policy=TaskPolicy(retry_delay=0))
        def handler(folder):
            note(folder, "start")
            raise ValueError("the melon is not ripe")
        """,
        name="raises",
    )
    task = place.ended(place.submit("raises", folder=str(tmp_path)))
    assert (task["status"], task["result"]) == ("FAILED", None)
    assert task["failure_reason"] == "ValueError: the melon is not ripe"
    assert [a["number"] for a in task["attempts"]] == [1, 2, 3, 4] == [x["attempt"] for x in ledger(tmp_path)]
    for attempt in task["attempts"]:
        assert (attempt["status"], attempt["failure_kind"]) == ("FAILED", "exception")
        assert attempt["failure_reason"] == "ValueError: the melon is not ripe"
        assert attempt["traceback"].startswith("Traceback (most recent call last):")
        assert 'File "app.py", line 8, in handler' in attempt["traceback"]
        assert 'raise ValueError("the melon is not ripe")' in attempt["traceback"]
    assert unix(task["ended_at"]) >= unix(task["attempts"][-1]["started_at"])


def test_a_handler_that_fails_once_and_then_succeeds_is_complete(place: Place) -> None:
    """The record keeps the failed attempt beside the one that gave the result."""
    place.deploy(
        """
        import os
        from treadle import TaskPolicy, task_queue

        @task_queue(task_policy=TaskPolicy(retry_delay=0.1))
        def handler():
            if os.environ["TASK_ATTEMPT"] == "1":
                raise ConnectionError("not yet")
            return "well"
        """,
        name="second",
    )
    task = place.ended(place.submit("second"))
    assert (task["status"], task["result"], task["failure_reason"]) == ("COMPLETE", "well", "")
    assert statuses(task) == ["FAILED", "COMPLETE"]
    assert task["attempts"][0]["failure_reason"] == "ConnectionError: not yet"
    assert unix(task["attempts"][1]["started_at"]) - unix(task["attempts"][0]["ended_at"]) >= 0.05


def test_a_task_that_waits_for_its_next_attempt_says_so(place: Place) -> None:
    """Between two attempts the status is RETRY and `why` says when the next one is due."""
    place.deploy(
        """
        from treadle import TaskPolicy, task_queue

        @task_queue(task_policy=TaskPolicy(retry_delay=60))
        def handler():
            raise ValueError("later")
        """,
        name="later",
    )
    task_id = place.submit("later")
    task = until(lambda: (t := place.task(task_id))["status"] == "RETRY" and t)
    assert task["why"].startswith("next attempt in ")
    assert (task["failure_reason"], task["ended_at"]) == ("ValueError: later", None)
    place.cancel(task_id)


def test_retries_0_means_one_attempt(place: Place) -> None:
    """The first failure is the last."""
    place.deploy(
        """
        from treadle import task_queue

        @task_queue(retries=0)
        def handler():
            raise ValueError("once")
        """,
        name="once",
    )
    task = place.ended(place.submit("once"))
    assert (task["status"], statuses(task)) == ("FAILED", ["FAILED"])


def test_retry_for_retries_the_classes_named_and_their_subclasses_only(place: Place) -> None:
    """OSError is named: a ConnectionResetError is retried, a KeyError is final, a crash is retried all the same."""
    place.deploy(
        """
        import os
        from treadle import TaskPolicy, task_queue

        @task_queue(retries=1, retry_for=[OSError], task_policy=TaskPolicy(retry_delay=0))
        def handler(how):
            if how == "subclass":
                raise ConnectionResetError("again")
            if how == "other":
                raise KeyError("final")
            os._exit(1)
        """,
        name="chosen",
    )
    ids = {how: place.submit("chosen", how=how) for how in ("subclass", "other", "crash")}
    tasks = {how: place.ended(task_id) for how, task_id in ids.items()}
    assert {how: kinds(task) for how, task in tasks.items()} == {
        "subclass": ["exception", "exception"], "other": ["exception"], "crash": ["exit", "exit"],
    }  # fmt: skip
    assert all(task["status"] == "FAILED" for task in tasks.values())


# deaths


def test_a_handler_that_takes_more_than_its_memory_is_killed_at_the_limit_and_retried(
    limited: Place, tmp_path: Path
) -> None:
    """1 GB at memory=128: out of memory with peak and limit, retried; its neighbour and the server live on."""
    limited.deploy(
        """
        from notes import gate, note
        from treadle import TaskPolicy, task_queue

        @task_queue(memory=128, workers=2, retries=1, task_policy=TaskPolicy(retry_delay=0))
        def handler(folder, how):
            note(folder, "start", how=how)
            if how == "wait":
                return gate(folder)
            hog = []
            for _ in range(1024):
                hog.append(b"x" * (1 << 20))
            return len(hog)
        """,
        name="hog",
    )
    neighbour = limited.submit("hog", folder=str(tmp_path), how="wait")
    limited.running(neighbour)
    task = limited.ended(limited.submit("hog", folder=str(tmp_path), how="take"))
    assert (task["status"], kinds(task)) == ("FAILED", ["oom", "oom"])
    for attempt in task["attempts"]:
        reason = attempt["failure_reason"]
        assert reason.startswith("out of memory: peak ")
        assert "at a limit of 128 MiB" in reason
        assert 100 <= int(reason.split("peak ")[1].split(" MiB")[0]) < 512
    assert limited.request("GET", "/health").json()["status"] == "ok"
    open_gate(tmp_path)
    survivor = limited.ended(neighbour)
    assert (survivor["status"], statuses(survivor)) == ("COMPLETE", ["COMPLETE"])


@pytest.mark.parametrize(
    ("death", "kind", "reason"),
    [
        ("os._exit(3)", "exit", "the process ended itself with exit code 3 during the task"),
        ("os.kill(os.getpid(), 11)", "signal", "the process was killed by signal 11 (SIGSEGV)"),
        ("ctypes.string_at(0)", "signal", "the process was killed by signal 11 (SIGSEGV)"),
    ],
    ids=["exit", "kill", "segfault"],
)
def test_a_process_that_dies_is_seen_at_once_and_the_task_retried(
    place: Place, tmp_path: Path, death: str, kind: str, reason: str
) -> None:
    """The attempt ends well under a second after the death, not by a timeout, and the next one starts at once."""
    place.deploy(
        f"""
        import ctypes, os, time
        from notes import note
        from treadle import TaskPolicy, task_queue

        @task_queue(task_policy=TaskPolicy(retry_delay=0))
        def handler(folder):
            note(folder, "start", unix=time.time())
            if os.environ["TASK_ATTEMPT"] == "1":
                {death}
            return "well"
        """,
        name=f"dies-{kind}-{len(death)}",
    )
    task = place.ended(place.submit(f"dies-{kind}-{len(death)}", folder=str(tmp_path)))
    assert (task["status"], task["result"], statuses(task)) == ("COMPLETE", "well", ["FAILED", "COMPLETE"])
    first = task["attempts"][0]
    assert (first["failure_kind"], first["failure_reason"]) == (kind, reason)
    died, again = (line["unix"] for line in ledger(tmp_path))
    assert unix(first["ended_at"]) - died < AT_ONCE
    assert again - died < AT_ONCE


def test_a_child_killed_from_outside_is_seen_at_once_and_the_task_retried(place: Place, tmp_path: Path) -> None:
    """kill -9 of the process that runs the task: signal 9 is the reason told, not out of memory."""
    place.deploy(
        """
        import os, time
        from notes import gate, note
        from treadle import TaskPolicy, task_queue

        @task_queue(task_policy=TaskPolicy(retry_delay=0))
        def handler(folder):
            note(folder, "start", unix=time.time())
            if os.environ["TASK_ATTEMPT"] == "1":
                gate(folder)
        """,
        name="victim",
    )
    task_id = place.submit("victim", folder=str(tmp_path))
    line = until(lambda: ledger(tmp_path))[0]
    child = process_of(line["container"], line["pid"])
    assert child is not None
    killed = time.time()
    child.kill()
    task = place.ended(task_id)
    assert (task["status"], kinds(task)) == ("COMPLETE", ["signal", ""])
    assert task["attempts"][0]["failure_reason"] == "the process was killed by signal 9 (SIGKILL)"
    assert unix(task["attempts"][0]["ended_at"]) - killed < AT_ONCE
    assert ledger(tmp_path)[1]["unix"] - killed < AT_ONCE


# time


def test_an_attempt_that_runs_longer_than_timeout_is_killed_with_all_it_started(place: Place, tmp_path: Path) -> None:
    """TIMEOUT with `ended_at`, no retry, no process left, and the next task runs in the same container."""
    place.deploy(
        """
        import os, subprocess
        from notes import gate, note
        from treadle import task_queue

        @task_queue(timeout=1)
        def handler(folder, stay):
            grandchild = subprocess.Popen(["sleep", "300"]).pid if stay else 0
            note(folder, "start", grandchild=grandchild)
            if stay:
                gate(folder)
            return "next"
        """,
        name="slow",
    )
    late = place.submit("slow", folder=str(tmp_path), stay=True)
    after = place.submit("slow", folder=str(tmp_path), stay=False)
    task, following = place.ended(late), place.ended(after)
    assert (task["status"], statuses(task), kinds(task)) == ("TIMEOUT", ["TIMEOUT"], ["timeout"])
    assert task["failure_reason"] == "ran longer than timeout=1 seconds and was killed"
    assert 1.0 <= unix(task["ended_at"]) - unix(task["started_at"]) < AT_ONCE
    line = ledger(tmp_path)[0]
    until(lambda: gone(line) and gone(line, "grandchild"), what="the end of child and grandchild")
    assert (following["status"], following["result"]) == ("COMPLETE", "next")
    assert following["container_id"] == task["container_id"]


def test_a_timeout_also_kills_what_the_handler_started_in_a_session_of_its_own(place: Place, tmp_path: Path) -> None:
    """A grandchild that has left the child's process group ends with the attempt, not with the container."""
    place.deploy(
        """
        import subprocess
        from notes import gate, note
        from treadle import task_queue

        @task_queue(timeout=1)
        def handler(folder):
            note(folder, "start", grandchild=subprocess.Popen(["sleep", "300"], start_new_session=True).pid)
            gate(folder)
        """,
        name="escaped",
    )
    assert place.ended(place.submit("escaped", folder=str(tmp_path)))["status"] == "TIMEOUT"
    line = ledger(tmp_path)[0]
    until(lambda: gone(line), what="the end of the child")
    until(lambda: gone(line, "grandchild"), what="the end of the grandchild")


def test_timeout_minus_1_never_kills(place: Place) -> None:
    """The attempt runs for as long as it takes; the context and the stub's config say 0: no limit."""
    place.deploy(
        """
        import time
        from treadle import task_queue

        @task_queue(timeout=-1)
        def handler(context):
            time.sleep(1.5)
            return context.timeout
        """,
        name="endless",
    )
    task = place.ended(place.submit("endless"))
    assert (task["status"], task["result"]) == ("COMPLETE", 0)
    assert json.loads(task["stub"]["config"])["task_policy"]["timeout"] == 0


def test_a_task_that_waits_longer_than_its_ttl_expires_and_never_runs(place: Place, tmp_path: Path) -> None:
    """EXPIRED with `ended_at` and reason; what runs is not bounded by the ttl."""
    place.deploy(
        """
        from notes import gate, note
        from treadle import TaskPolicy, task_queue

        @task_queue(task_policy=TaskPolicy(ttl=1))
        def handler(folder):
            note(folder, "start")
            gate(folder)
        """,
        name="stale",
    )
    ahead = place.submit("stale", folder=str(tmp_path))
    place.running(ahead)
    behind = place.submit("stale", folder=str(tmp_path))
    task = place.ended(behind)
    assert (task["status"], task["attempts"], task["started_at"]) == ("EXPIRED", [], None)
    assert task["failure_reason"] == "waited longer than ttl=1 seconds"
    assert 1.0 <= unix(task["ended_at"]) - unix(task["created_at"]) < AT_ONCE
    open_gate(tmp_path)
    assert place.ended(ahead)["status"] == "COMPLETE"
    assert [line["task"] for line in ledger(tmp_path)] == [ahead]
