"""Where tasks run: containers of their own, started on demand, scaled with the queue and gone when it is empty."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from notes import ledger, open_gate
from place import Place, until

from treadle.runtime.python import installed

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def _notes(place: Place) -> None:
    place.share_notes()


def active(place: Place, task_id: str) -> int:
    """Containers that the deployment of this task has now."""
    return int(place.task(task_id)["stats"]["active_containers"])


def runners(place: Place, made: dict[str, str]) -> list[str]:
    """Command lines of live processes of this deployment's containers."""
    return [line for p in place.processes() if made["deployment_id"] in (line := " ".join(p.cmdline()))]


def test_each_container_works_in_its_own_writable_copy_of_the_source(place: Place, tmp_path: Path) -> None:
    """A file written into the working directory is seen by no other container, no later one, and not by its author."""
    place.deploy(
        """
        import os
        from pathlib import Path
        from notes import meet
        from treadle import QueueDepthAutoscaler, task_queue

        @task_queue(keep_warm_seconds=0, autoscaler=QueueDepthAutoscaler(max_containers=2))
        def handler(folder, count):
            dirty = Path("scratch.txt").exists()
            Path("scratch.txt").write_text("mine")
            Path("app.py").write_text("changed")
            meet(folder, count)
            return {"cwd": os.getcwd(), "dirty": dirty, "container": os.environ["CONTAINER_ID"]}
        """,
        name="copy",
    )
    both = [place.ended(i) for i in [place.submit("copy", folder=str(tmp_path), count=2) for _ in range(2)]]
    until(lambda: active(place, both[0]["id"]) == 0, what="scaling to zero")
    later = place.ended(place.submit("copy", folder=str(tmp_path), count=1))
    results = [task["result"] for task in [*both, later]]
    assert [result["dirty"] for result in results] == [False, False, False]
    assert len({result["cwd"] for result in results}) == 3
    assert len({result["container"] for result in results}) == 3
    assert not (place.code / "scratch.txt").exists()
    assert (place.code / "app.py").read_text() != "changed"


def test_a_handler_is_told_where_it_is_by_environment_and_context(place: Place) -> None:
    """`env`, TASK_ID and the container's names are in the environment; `context` has every field of Beam's."""
    made = place.deploy(
        """
        import os
        from treadle import task_queue

        @task_queue(env={"COLOUR": "teal"}, timeout=77, callback_url="http://127.0.0.1:9/hook", on_start=lambda: 5)
        def handler(context):
            names = ("COLOUR", "TASK_ID", "CONTAINER_ID", "STUB_ID")
            fields = ("container_id", "stub_id", "stub_type", "callback_url", "task_id", "timeout",
                      "on_start_value", "bind_port", "python_version")
            return {"env": {n: os.environ.get(n) for n in names}, "context": {f: getattr(context, f) for f in fields},
                    "python": "%d.%d.%d" % __import__("sys").version_info[:3]}
        """,
        name="told",
    )
    task = place.ended(place.submit("told"))
    result = task["result"]
    assert task["stub"]["type"] == "taskqueue/deployment"
    assert task["container_id"].startswith(f"taskqueue-{made['stub_id']}-")
    assert result["env"] == {
        "COLOUR": "teal", "TASK_ID": task["id"], "CONTAINER_ID": task["container_id"], "STUB_ID": made["stub_id"],
    }  # fmt: skip
    assert result["context"] == {
        "container_id": task["container_id"],
        "stub_id": made["stub_id"],
        "stub_type": "taskqueue/deployment",
        "callback_url": "http://127.0.0.1:9/hook",
        "task_id": task["id"],
        "timeout": 77,
        "on_start_value": 5,
        "bind_port": 0,
        "python_version": result["python"],
    }


def test_on_start_runs_once_in_each_child(place: Place, tmp_path: Path) -> None:
    """Two children run six tasks: each has run `on_start` once, before its first task, and offers its value."""
    place.deploy(
        f"""
        import os
        from notes import meet, note
        from treadle import task_queue

        def load():
            note({str(tmp_path)!r}, "on_start")
            return os.getpid()

        @task_queue(workers=2, on_start=load)
        def handler(folder, context):
            meet(folder, 2)
            note(folder, "start")
            return [os.getpid(), context.on_start_value]
        """,
        name="starts",
    )
    tasks = [place.ended(i) for i in [place.submit("starts", folder=str(tmp_path)) for _ in range(6)]]
    pids = {pid for pid, _ in (task["result"] for task in tasks)}
    assert all(pid == value for pid, value in (task["result"] for task in tasks))
    assert sorted(line["pid"] for line in ledger(tmp_path, "on_start")) == sorted(pids)
    assert len(pids) == 2


def test_workers_run_that_many_tasks_of_one_container_at_once(place: Place, tmp_path: Path) -> None:
    """With workers=3 three tasks that wait for each other all get on, in three processes of one container."""
    place.deploy(
        """
        import os
        from notes import meet
        from treadle import task_queue

        @task_queue(workers=3)
        def handler(folder):
            meet(folder, 3)
            return os.getpid()
        """,
        name="three",
    )
    tasks = [place.ended(i) for i in [place.submit("three", folder=str(tmp_path)) for _ in range(3)]]
    assert len({task["result"] for task in tasks}) == 3
    assert len({task["container_id"] for task in tasks}) == 1


def test_by_default_tasks_run_one_at_a_time_in_the_order_they_were_accepted(place: Place, tmp_path: Path) -> None:
    """Twenty tasks pile up behind the first: they run in one process, first in first out, never two at once."""
    place.deploy(
        """
        from notes import gate, note
        from treadle import task_queue

        @task_queue()
        def handler(folder):
            note(folder, "start")
            gate(folder)
            note(folder, "end")
        """,
        name="fifo",
    )
    ids = [place.submit("fifo", folder=str(tmp_path)) for _ in range(20)]
    place.running(ids[0])
    assert place.task(ids[1])["status"] == "PENDING"
    assert place.task(ids[1])["why"]
    open_gate(tmp_path)
    for task_id in ids:
        place.ended(task_id)
    lines = [(line["task"], line["event"]) for line in ledger(tmp_path)]
    assert lines == [(task_id, event) for task_id in ids for event in ("start", "end")]
    assert len({line["pid"] for line in ledger(tmp_path)}) == 1


def test_a_backlog_gets_as_many_containers_as_the_autoscaler_allows_and_never_more(
    place: Place, tmp_path: Path
) -> None:
    """Eight tasks at max_containers=2: two containers run them, two at a time, however long the backlog waits."""
    place.deploy(
        """
        from notes import gate, note
        from treadle import QueueDepthAutoscaler, task_queue

        @task_queue(autoscaler=QueueDepthAutoscaler(max_containers=2))
        def handler(folder):
            note(folder, "start")
            gate(folder)
        """,
        name="scaled",
    )
    seen = set()
    ids = [place.submit("scaled", folder=str(tmp_path)) for _ in range(8)]

    def both_busy_for_a_while() -> bool:
        seen.add(active(place, ids[0]))
        starts = ledger(tmp_path, "start")
        return len(starts) == 2 and time.monotonic() > starts[1]["at"] + 1.5  # more than one look of the autoscaler

    until(both_busy_for_a_while, what="two containers at work")
    assert [place.task(i)["status"] for i in ids] == ["RUNNING"] * 2 + ["PENDING"] * 6
    open_gate(tmp_path)
    tasks = [place.ended(i) for i in ids]
    assert len({task["container_id"] for task in tasks}) == 2
    assert max(seen) == 2


def test_tasks_per_container_bounds_how_many_containers_a_small_backlog_gets(place: Place, tmp_path: Path) -> None:
    """Three tasks at tasks_per_container=3 get one container, although ten are allowed."""
    place.deploy(
        """
        from treadle import QueueDepthAutoscaler, task_queue

        @task_queue(autoscaler=QueueDepthAutoscaler(max_containers=10, tasks_per_container=3))
        def handler():
            pass
        """,
        name="dense",
    )
    tasks = [place.ended(i) for i in [place.submit("dense") for _ in range(3)]]
    assert len({task["container_id"] for task in tasks}) == 1


def test_an_idle_container_stays_warm_for_a_while_and_then_nothing_of_it_is_left(place: Place) -> None:
    """keep_warm_seconds=1: a second task finds the same process; then there is no container and no process."""
    made = place.deploy(
        """
        import os
        from treadle import task_queue

        @task_queue(keep_warm_seconds=1)
        def handler():
            return [os.environ["CONTAINER_ID"], os.getpid()]
        """,
        name="warm",
    )
    first = place.ended(place.submit("warm"))
    ended = time.monotonic()
    second = place.ended(place.submit("warm"))
    assert first["result"] == second["result"]
    assert runners(place, made)
    until(lambda: active(place, first["id"]) == 0 and not runners(place, made), what="scaling to zero")
    assert 0.9 < time.monotonic() - ended < 6
    third = place.ended(place.submit("warm"))
    assert third["container_id"] != first["container_id"]


def test_an_async_handler_is_awaited(place: Place) -> None:
    """The task's result is what the coroutine returns; on_start may be `async def` too."""
    place.deploy(
        """
        import asyncio
        from treadle import task_queue

        async def load():
            await asyncio.sleep(0)
            return 40

        @task_queue(on_start=load)
        async def handler(x, context):
            await asyncio.sleep(0.01)
            return context.on_start_value + x
        """,
        name="awaited",
    )
    task = place.ended(place.submit("awaited", x=2))
    assert (task["status"], task["result"]) == ("COMPLETE", 42)


def test_a_module_that_cannot_be_imported_is_told_by_why_and_degrades_the_deployment(place: Place) -> None:
    """The waiting task says what the import raised; after three failed starts it also says degraded, and waits."""
    made = place.deploy(
        """
        import os
        from treadle import task_queue

        if "CONTAINER_ID" in os.environ:
            import no_such_module

        @task_queue()
        def handler():
            pass
        """,
        name="broken",
    )
    task_id = place.submit("broken")
    until(lambda: "No module named 'no_such_module'" in place.task(task_id)["why"], what="the reason")
    why = until(lambda: (w := place.task(task_id)["why"]).startswith("degraded: 3 failed starts") and w)
    assert "ModuleNotFoundError: No module named 'no_such_module'" in why
    until(lambda: active(place, task_id) == 0, what="the end of the last container")
    task = place.task(task_id)
    assert (task["status"], task["attempts"]) == ("PENDING", [])
    until(lambda: not runners(place, made), what="the end of the failed runners")
    place.cancel(task_id)
    log = place.log.read_text().splitlines()
    ends = [line for line in log if "container ended" in line and made["deployment_id"] in line]
    assert ends and all("could not load the handler: importing 'app' raised" in line for line in ends)
    assert 'File "app.py", line 6, in <module>' in [line.strip() for line in log]


def test_a_task_runs_on_the_python_its_image_asks_for(place: Place) -> None:
    """An image with another Python than the server's has its own runner; a Python too old for it is refused."""
    here = f"3.{sys.version_info.minor}"
    others = [python.minor for python in installed() if python.minor not in (here, *(f"3.{n}" for n in range(11)))]
    if not others:
        pytest.skip("this machine has no other Python from 3.11")
    app = """
        import sys
        from treadle import Image, task_queue

        @task_queue(image=Image(python_version="python{}"))
        def handler(context):
            return [".".join(map(str, sys.version_info[:2])), context.python_version]
        """
    place.deploy(app.format(others[0]), name="other")
    task = place.ended(place.submit("other"))
    assert task["status"] == "COMPLETE", task["failure_reason"]
    assert task["result"][0] == others[0] and task["result"][1].startswith(others[0])
    place.app(app.format("3.10"))
    refused = place.cli("deploy", "app.py:handler", "--name", "old")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: Python 3.10 is too old: Treadle's runner"), refused.stderr
