"""Containers as the queue, the machine's room and the others allow; and stops that cost nobody anything."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from notes import ledger, open_gate
from place import Place, until

pytestmark = pytest.mark.e2e

GATED = """
    import os
    from notes import gate, note
    from treadle import QueueDepthAutoscaler, TaskPolicy, task_queue

    @task_queue(memory=128, keep_warm_seconds={warm}, retries={retries}, task_policy=TaskPolicy(retry_delay=0.05),
                autoscaler=QueueDepthAutoscaler(max_containers={most}, min_containers={least}))
    def handler(folder, door="gate", fail_at=0):
        note(folder, "start")
        gate(folder, door)
        if int(os.environ["TASK_ATTEMPT"]) == fail_at:
            raise ValueError("as asked")
        return {version}
    """
SHORT = """
    import time
    from treadle import QueueDepthAutoscaler, task_queue

    @task_queue(memory=128, max_pending_tasks=100000, autoscaler=QueueDepthAutoscaler(max_containers=100))
    def handler(seconds):
        time.sleep(seconds)
    """


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A machine with room for four containers of 128 MiB."""
    place = Place(tmp_path_factory.mktemp("place"))
    try:
        place.up(env={"TREADLE_MEMORY": "512"})
        place.share_notes()
        yield place
        assert place.stop() == 0, place.log.read_text()
        assert place.processes() == [], "the server left processes behind"
    finally:
        place.clean_up()


def gated(place: Place, name: str, **fields: Any) -> str:
    values = {"warm": 10, "retries": 3, "most": 100, "least": 0, "version": 1, **fields}
    return str(place.deploy(GATED.format(**values), name=name)["deployment_id"])


def shown(place: Place, deployment_id: str) -> dict[str, Any]:
    answer = place.request("GET", f"/v2/deployments/{deployment_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def switch(place: Place, verb: str, *names: str) -> str:
    done = place.cli("deployment", verb, *names)
    assert done.returncode == 0, done.stderr
    return done.stdout


def working(place: Place, deployment_id: str) -> int:
    """Tasks of it that run now: one in each container."""
    return int(shown(place, deployment_id)["running"])


@pytest.fixture
def emptied(place: Place) -> Any:
    """Whatever a test deploys is gone after it, and with it its containers."""
    yield
    for view in place.request("GET", "/v2/deployments").json()["data"]:
        assert place.request("DELETE", f"/v2/deployments/{view['id']}").status_code == 200
    until(lambda: place.request("GET", "/v2/containers").json() == [], what="an empty machine", seconds=45)


@pytest.mark.usefixtures("emptied")
def test_two_deployments_that_each_want_all_of_it_get_half_each(place: Place) -> None:
    """The one that comes late too, within seconds, and neither is ever without."""
    greedy, late = (place.deploy(SHORT, name=name)["deployment_id"] for name in ("greedy", "late"))
    place.request("POST", "/taskqueue/greedy/batch", json=[{"seconds": 0.3}] * 400)
    until(lambda: working(place, greedy) == 4, what="a machine full of the greedy one")
    place.request("POST", "/taskqueue/late/batch", json=[{"seconds": 0.3}] * 400)
    came = time.monotonic()
    until(lambda: (working(place, greedy), working(place, late)) == (2, 2), what="two and two")
    took = time.monotonic() - came
    assert took < 10, f"it took {took:.1f} s"
    before = [shown(place, d)["waiting"] for d in (greedy, late)]
    seen = set()

    def looked() -> bool:
        seen.add((working(place, greedy), working(place, late)))
        return time.monotonic() > came + took + 5

    until(looked, what="five seconds")
    done = [b - shown(place, d)["waiting"] for b, d in zip(before, (greedy, late), strict=True)]
    assert 0.7 < done[0] / done[1] < 1.4, f"{done} tasks were done"
    assert all(1 <= a <= 2 and 1 <= b <= 2 for a, b in seen), seen


@pytest.mark.usefixtures("emptied")
def test_a_deployment_waits_for_room_and_says_so_and_idle_ones_make_it(place: Place, tmp_path: Path) -> None:
    """While others are at work it waits, told with numbers by record, route and command; warm ones give way at once."""
    gated(place, "holder", warm=600)
    gated(place, "waiter", most=1)
    ids = [place.submit("holder", folder=str(tmp_path)) for _ in range(4)]
    for task_id in ids:
        place.running(task_id)
    place.deploy(SHORT.replace("memory=128", "memory=500"), name="big")
    task_id = place.submit("big", seconds=0)
    why = until(lambda: place.task(task_id)["why"] and place.task(task_id)["why"])
    assert "waits for memory: asks 500 MiB, 0 MiB are free now" in until(
        lambda: (w := place.task(task_id)["why"]) and "memory" in w and w
    ), why
    answer = place.request("GET", f"/v2/task/{task_id}/why").json()
    assert (answer["task_id"], answer["status"]) == (task_id, "PENDING")
    assert answer["why"].startswith("waits for memory: asks 500 MiB")
    said = place.cli("why", task_id)
    assert said.stdout.startswith("PENDING: waits for memory: asks 500 MiB"), said.stdout
    open_gate(tmp_path)
    assert place.ended(task_id)["status"] == "COMPLETE"
    assert all(place.ended(i)["status"] == "COMPLETE" for i in ids)


@pytest.mark.usefixtures("emptied")
def test_more_than_any_machine_has_is_unschedulable(place: Place) -> None:
    """Deploying warns, and the task, the deployment and the command say it with numbers."""
    place.app(SHORT.replace("memory=128", "memory=4096"))
    deployed = place.cli("deploy", "app.py:handler", "--name", "huge")
    reason = "unschedulable: asks cpu=1 memory=4096 MiB; the largest machine has cpu="
    assert f"! No container of this can run here: {reason}" in deployed.stdout
    task_id = place.submit("huge", seconds=0)
    assert until(lambda: place.task(task_id)["why"].startswith(reason) and place.task(task_id)["why"]).endswith("512 MiB")
    listed = place.cli("deployment", "list", "--name", "huge").stdout
    assert "unschedulable" in listed
    assert f"! huge v1: {reason}" in listed
    refused = place.request("POST", "/taskqueue/huge/warmup")
    assert refused.status_code == 409
    assert refused.json()["error"].startswith(f"No container was started: {reason}")


@pytest.mark.usefixtures("emptied")
def test_the_least_runs_right_after_the_deploy_and_after_a_death(place: Place) -> None:
    """Without any task; a new version takes over."""
    first = gated(place, "least", least=1)
    alive = until(lambda: _runners(place, first))
    os.kill(alive[0], signal.SIGKILL)
    again = until(lambda: (r := _runners(place, first)) and r != alive and r)
    assert len(again) == 1
    second = gated(place, "least", least=1, warm=0)
    until(lambda: _runners(place, second))
    until(lambda: not _runners(place, first), seconds=30, what="the end of the old one")


def _runners(place: Place, deployment_id: str) -> list[int]:
    """The outermost process of each of its containers."""
    above: dict[int, int] = {}
    for process in place.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if deployment_id in " ".join(process.cmdline()):
                above[process.pid] = process.ppid()
    return [pid for pid, parent in above.items() if parent not in above]


@pytest.mark.usefixtures("emptied")
def test_a_warm_up_starts_a_container_without_a_task(place: Place) -> None:
    """By name, version and id; it answers nothing, and the container stays for `keep_warm_seconds`."""
    deployment_id = gated(place, "cold", warm=4)
    for path in ("cold/warmup", "cold/v1/warmup", f"id/{deployment_id}/warmup"):
        answer = place.request("POST", f"/taskqueue/{path}")
        assert (answer.status_code, answer.content) == (200, b"")
    until(lambda: _runners(place, deployment_id))
    loaded = time.monotonic()
    assert shown(place, deployment_id)["containers"] == 1
    until(lambda: not _runners(place, deployment_id), what="the end of the warm one")
    assert 3 < time.monotonic() - loaded < 9
    assert place.request("POST", "/taskqueue/cold/warmup", token="wrong").status_code == 401
    assert place.request("POST", "/taskqueue/nobody/warmup").status_code == 404
    assert place.request("POST", f"/taskqueue/public/{deployment_id}/warmup").status_code == 404
    said = place.script("from app import handler\nhandler.warmup()\nprint('warm')\n")
    assert said.stdout.endswith("warm\n"), said.stderr


@pytest.mark.usefixtures("emptied")
def test_a_redeploy_lets_the_old_version_finish(place: Place, tmp_path: Path) -> None:
    """What runs and what waits in it is done by its own code, and it can still be called."""
    gated(place, "drained", most=1, version=1)
    old = [place.submit("drained", folder=str(tmp_path)) for _ in range(3)]
    place.running(old[0])
    gated(place, "drained", most=1, version=2)
    new = place.submit("drained", folder=str(tmp_path))
    place.running(new)
    late = place.submit("drained/v1", folder=str(tmp_path))
    open_gate(tmp_path)
    assert [place.ended(i)["result"] for i in [*old, late, new]] == [1, 1, 1, 1, 2]


@pytest.mark.usefixtures("emptied")
def test_stopping_starting_and_deleting_a_deployment(place: Place, tmp_path: Path) -> None:
    """Stopped it refuses and keeps what waits; started it runs it; deleted it cancels it and is found no more."""
    deployment_id = gated(place, "switched", most=1)
    running, waiting = (place.submit("switched", folder=str(tmp_path)) for _ in range(2))
    place.running(running)
    assert switch(place, "stop", "switched/v1") == "Stopped switched v1. 1 waiting task goes on waiting.\n"
    refused = place.request("POST", "/taskqueue/switched", json={})
    assert (refused.status_code, refused.json()["message"]) == (409, "Deployment is not active.")
    assert shown(place, deployment_id)["state"] == "stopped"
    open_gate(tmp_path)
    assert place.ended(running)["status"] == "COMPLETE"
    until(lambda: shown(place, deployment_id)["containers"] == 0)
    assert place.task(waiting)["status"] == "PENDING"
    assert place.task(waiting)["why"] == "its deployment is stopped"
    assert switch(place, "start", deployment_id) == "Started switched v1.\n"
    assert place.ended(waiting)["status"] == "COMPLETE"
    (tmp_path / "gate").unlink()
    running, waiting = (place.submit("switched", folder=str(tmp_path)) for _ in range(2))
    place.running(running)
    assert switch(place, "delete", "switched/v1") == "Deleted switched v1. 1 waiting task is being cancelled.\n"
    assert place.ended(waiting)["failure_reason"] == "cancelled: its deployment was deleted"
    assert place.request("POST", "/taskqueue/switched", json={}).status_code == 404
    assert place.request("GET", f"/v2/deployments/{deployment_id}").status_code == 404
    assert "switched" not in place.cli("deployment", "list").stdout
    assert place.task(waiting)["deployment"]["name"] == "switched"
    open_gate(tmp_path)
    assert place.ended(running)["status"] == "COMPLETE"


@pytest.mark.usefixtures("emptied")
def test_a_degraded_deployment_shows_what_its_containers_said_and_recovers(place: Place) -> None:
    """The traceback is in `why` and in the list; a new version starts at once."""
    broken = """
        import os
        from treadle import task_queue

        def load():
            raise RuntimeError("no weights in /models")

        @task_queue(on_start=load)
        def handler():
            return "well"
        """
    made = place.deploy(broken, name="frail")
    task_id = place.submit("frail")
    until(lambda: shown(place, made["deployment_id"])["state"] == "degraded", what="three failed starts")
    view = json.loads(place.cli("why", task_id, "--json").stdout)
    assert view["why"].startswith("degraded: 3 failed starts; next try in ")
    assert "RuntimeError: no weights in /models" in view["log_tail"]
    listed = place.cli("deployment", "list").stdout
    assert "! frail v1: degraded: 3 failed starts" in listed
    assert '  File "app.py", line 6, in load' in listed
    place.deploy(broken.replace("raise RuntimeError", "print"), name="frail")
    assert place.ended(place.submit("frail"))["result"] == "well"
    place.cancel(task_id)


def test_what_a_shutdown_cuts_off_is_run_again_and_not_charged(own_place: Place, tmp_path: Path) -> None:
    """`down --grace`: what ends in time is complete; the rest waits for the next start, with all its retries left."""
    place = own_place.up()
    place.share_notes()
    gated(place, "q", most=3, retries=1)
    quick = place.submit("q", folder=str(tmp_path), door="quick")
    slow = place.submit("q", folder=str(tmp_path), door="slow", fail_at=2)
    never = place.submit("q", folder=str(tmp_path), door="slow")
    for task_id in (quick, slow, never):
        place.running(task_id)
    waiting = place.submit("q", folder=str(tmp_path), door="slow")
    downs: list[Any] = []
    down = threading.Thread(target=lambda: downs.append(place.cli("down", "--grace", "3")))
    down.start()
    until(lambda: place.request("GET", "/health").status_code == 503, what="the end of taking work")
    began = time.monotonic()
    open_gate(tmp_path, "quick")
    down.join()
    assert downs[0].returncode == 0, downs[0].stderr
    assert 2.5 < time.monotonic() - began < 10
    assert place.process is not None and place.process.wait(5) == 0
    assert place.processes() == []
    place.up()
    assert place.task(quick)["status"] == "COMPLETE"
    cut = place.task(slow)["attempts"][0]
    assert (cut["failure_kind"], cut["failure_reason"]) == ("interrupted", "interrupted: shut down")
    open_gate(tmp_path, "slow")
    ends = [place.ended(task_id) for task_id in (slow, never, waiting)]
    assert [end["status"] for end in ends] == ["COMPLETE"] * 3
    kinds = [[attempt["failure_kind"] for attempt in end["attempts"]] for end in ends]
    assert kinds == [["interrupted", "exception", ""], ["interrupted", ""], [""]]
    starts = [line["task"] for line in ledger(tmp_path, "start")]
    assert {task_id: starts.count(task_id) for task_id in (quick, slow, never, waiting)} == {
        quick: 1, slow: 3, never: 2, waiting: 1,
    }  # fmt: skip
