"""GPUs as containers get them: whole, alone, by name, until the last process is gone. The devices are pretended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from notes import ledger, open_gate
from place import Place, until

pytestmark = pytest.mark.e2e

FAKE = {"TREADLE_FAKE_GPUS": "NVIDIA A10G, NVIDIA A10G, Tesla T4"}
APP = """
    import os
    from notes import gate, note
    from treadle import QueueDepthAutoscaler, task_queue

    @task_queue({asks}, keep_warm_seconds=0, autoscaler=QueueDepthAutoscaler(max_containers=9))
    def handler(folder, door="gate"):
        note(folder, "start", devices=os.environ["CUDA_VISIBLE_DEVICES"].split(","))
        gate(folder, door)
        note(folder, "end")
        return os.environ["CUDA_VISIBLE_DEVICES"]
    """


@pytest.fixture
def place(own_place: Place) -> Place:
    own_place.up(env=FAKE)
    own_place.share_notes()
    return own_place


def deploy(place: Place, name: str, asks: str) -> dict[str, Any]:
    return place.deploy(APP.format(asks=asks), name=name)


def devices(folder: Path, task_id: str, attempt: int = 1) -> list[str]:
    """What the container of a running attempt sees."""
    lines = until(lambda: [x for x in ledger(folder, "start") if (x["task"], x["attempt"]) == (task_id, attempt)])
    return list(lines[0]["devices"])


def test_each_container_has_devices_of_its_own_by_name(place: Place, tmp_path: Path) -> None:
    """Two queues never share one; the third waits and says so; without `gpu` none is seen."""
    deploy(place, "one", 'gpu="A10G"')
    deploy(place, "two", 'gpu=["H100", "A10G"]')
    deploy(place, "small", 'gpu="T4"')
    deploy(place, "none", "cpu=1.0")
    first, second = place.submit("one", folder=str(tmp_path)), place.submit("two", folder=str(tmp_path))
    small, none = place.submit("small", folder=str(tmp_path)), place.submit("none", folder=str(tmp_path))
    seen = [devices(tmp_path, task_id) for task_id in (first, second)]
    assert sorted(seen) == [["GPU-fake-nvidia-a10g-1"], ["GPU-fake-nvidia-a10g-2"]]
    assert devices(tmp_path, small) == ["GPU-fake-tesla-t4-1"]
    assert devices(tmp_path, none) == [""]
    late = place.submit("two", folder=str(tmp_path), door="late")
    until(lambda: place.task(late)["why"] == "waits for gpu=H100 or A10G x1: 0 of 2 are free now")
    open_gate(tmp_path)
    place.ended(first)
    assert devices(tmp_path, late)[0] in ("GPU-fake-nvidia-a10g-1", "GPU-fake-nvidia-a10g-2")
    open_gate(tmp_path, "late")
    assert place.ended(late)["status"] == "COMPLETE"


def test_a_gpu_that_no_machine_has_is_unschedulable(place: Place, tmp_path: Path) -> None:
    """A10 is not A10G; the deploy warns and the task says what there is."""
    made = deploy(place, "wrong", 'gpu="A10", gpu_count=2')
    reason = "unschedulable: gpu=A10 x2; this cluster has: NVIDIA A10G x2, Tesla T4 x1"
    assert made["warning"] == reason
    task_id = place.submit("wrong", folder=str(tmp_path))
    until(lambda: place.task(task_id)["why"] == reason)
    assert place.cli("why", task_id).stdout == f"PENDING: {reason}\n"
    deploy(place, "enough", 'gpu="any", gpu_count=3')
    open_gate(tmp_path)
    assert len(str(place.ended(place.submit("enough", folder=str(tmp_path)))["result"]).split(",")) == 3


def test_kill_9_of_a_container_frees_its_device(place: Place, tmp_path: Path) -> None:
    """The retry gets it again."""
    deploy(place, "killed", 'gpu="T4"')
    task_id = place.submit("killed", folder=str(tmp_path))
    held = devices(tmp_path, task_id)
    mine = [p for p in place.processes() if place.task(task_id)["container_id"] in " ".join(p.cmdline())]
    above = {process.pid for process in mine}
    (runner,) = [process for process in mine if process.ppid() not in above]
    runner.kill()
    assert devices(tmp_path, task_id, attempt=2) == held
    open_gate(tmp_path)
    assert place.ended(task_id)["status"] == "COMPLETE"


def test_a_restart_of_server_and_agent_keeps_who_has_what(place: Place, tmp_path: Path) -> None:
    """The container that goes on meanwhile keeps its device; nobody else gets it before its end."""
    deploy(place, "kept", 'gpu="T4"')
    deploy(place, "other", 'gpu="T4"')
    first = place.submit("kept", folder=str(tmp_path))
    held = devices(tmp_path, first)
    place.kill9()
    place.up(env=FAKE)
    second = place.submit("other", folder=str(tmp_path), door="later")
    until(lambda: place.task(second)["why"] == "waits for gpu=T4 x1: 0 of 1 are free now")
    open_gate(tmp_path)
    assert len(place.ended(first)["attempts"]) == 1
    assert devices(tmp_path, second) == held
    open_gate(tmp_path, "later")
    assert place.ended(second)["status"] == "COMPLETE"
    lines = ledger(tmp_path)
    assert [(line["task"], line["event"]) for line in lines] == [
        (task_id, event) for task_id in (first, second) for event in ("start", "end")
    ]
