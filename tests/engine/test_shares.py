"""Room on machines and devices as the scaler deals with them: who is started, who makes room, what is said."""

from __future__ import annotations

import pytest

from treadle.engine.effects import ToAgent
from treadle.engine.fleet import Drain, Gone
from treadle.engine.switch import Which
from treadle.model.container import ContainerStatus
from treadle.model.deployment import Autoscaler, Deployment
from treadle.model.errors import Conflict, Unavailable
from treadle.model.task import FailureKind, TaskStatus
from treadle.model.wire import LEASE_SECONDS, Wanted

from .making import Desk

C, S = ContainerStatus, TaskStatus
MANY = Autoscaler(max_containers=100)


def living(desk: Desk, deployment: Deployment, *, leaving: bool = False) -> list[str]:
    return [c.id for c in desk.engine.roster.of(deployment.id) if (c.status is C.STOPPING) == leaving]


def fill(desk: Desk, deployment: Deployment, count: int) -> dict[str, int]:
    """Containers that each run a task, with more waiting behind; their links."""
    for _ in range(count * 2):
        desk.submit(deployment)
    desk.tick()
    return {name: desk.connect(name) for name in living(desk, deployment)}


def finish(desk: Desk, container: str, link: int) -> None:
    """The task of a container ends; a stopping one ends with it."""
    stopping = desk.status(container) is C.STOPPING
    desk.finish(container, link, desk.task_of(container))
    if stopping:
        desk.ask(desk.engine.fleet.gone, Gone(container, "ended with exit code 0"))


def test_the_late_one_gets_its_half_after_the_tasks_that_run(desk: Desk) -> None:
    """Nothing is cut off: containers of the greedy finish what they run, and the late one's start in their place."""
    desk.agent(memory=400)
    greedy, late = (desk.deploy(name, memory=100, autoscaler=MANY) for name in ("greedy", "late"))
    links = fill(desk, greedy, 4)
    assert len(links) == 4
    for _ in range(8):
        desk.submit(late)
    desk.tick(1)
    leaving = living(desk, greedy, leaving=True)
    assert len(leaving) == 2
    assert desk.counts(greedy) == (4, 4), "all four tasks go on"
    assert living(desk, late) == []
    assert "room is being made" in desk.engine.scaler.why(late.id, desk.now)
    assert desk.row(leaving[0]).reason == "made room for late v1"
    for container in leaving:
        finish(desk, container, links[container])
        desk.tick()
    assert (len(living(desk, greedy)), len(living(desk, late))) == (2, 2)
    for container in living(desk, late):
        desk.connect(container)
    desk.tick(5)
    assert living(desk, greedy, leaving=True) == living(desk, late, leaving=True) == []


def test_a_container_that_gives_way_has_as_long_as_its_task_may_take(desk: Desk) -> None:
    """Its lease is renewed meanwhile, so that a lost machine is seen; and a shutdown shortens it."""
    desk.agent(memory=200)
    greedy, late = (desk.deploy(name, memory=100, timeout=600, autoscaler=MANY) for name in ("greedy", "late"))
    fill(desk, greedy, 2)
    desk.submit(late)
    desk.tick(1)
    (container,) = living(desk, greedy, leaving=True)
    assert desk.row(container).stop_by == desk.now + 600
    for _ in range(40):
        desk.now += 1
        desk.run((desk.engine.fleet.beat, container), (desk.engine.fleet.sweep, None))
    assert desk.status(container) is C.STOPPING
    desk.ask(desk.engine.fleet.drain, Drain(5.0))
    assert desk.row(container).stop_by == desk.now + 5


def test_a_machine_that_is_lost_while_a_container_gives_way_is_charged_as_lost(desk: Desk) -> None:
    """Only what is cut off at the end of the time to stop was interrupted."""
    hello = desk.agent(memory=200)
    greedy, late = (desk.deploy(name, memory=100, timeout=600, autoscaler=MANY) for name in ("greedy", "late"))
    fill(desk, greedy, 2)
    desk.submit(late)
    desk.tick(1)
    (container,) = living(desk, greedy, leaving=True)
    task_id = desk.task_of(container)
    desk.ask(desk.engine.fleet.agent_gone, hello)
    for _ in range(int(LEASE_SECONDS) + 2):
        desk.now += 1
        desk.run((desk.engine.fleet.sweep, None))
    task = desk.task(task_id)
    assert task.failure is not None
    assert (task.status, task.failure.kind) == (S.RETRY, FailureKind.LOST)


def test_idle_containers_make_room_at_once(desk: Desk) -> None:
    """However long they were to stay warm; but not those that `min_containers` or a warm-up promise."""
    desk.agent(memory=300)
    idle = desk.deploy("idle", memory=100, keep_warm_seconds=999)
    least = desk.deploy("least", memory=100, autoscaler=Autoscaler(max_containers=2, min_containers=1))
    warmed = desk.deploy("warmed", memory=100, keep_warm_seconds=60)
    container, _ = desk.started(idle)
    desk.connect(desk.container(least))
    desk.ask(desk.engine.scaler.warm, warmed)
    desk.connect(desk.container(warmed))
    desk.now += 2
    waiting = desk.deploy("waiting", memory=100)
    desk.submit(waiting)
    desk.tick()
    assert [stop.reason for stop in desk.stopped()] == ["made room for waiting v1"]
    assert desk.status(container) is C.STOPPING
    desk.ask(desk.engine.fleet.gone, Gone(container, "ended with exit code 0"))
    desk.tick()
    assert len(living(desk, waiting)) == 1
    assert (len(living(desk, least)), len(living(desk, warmed))) == (1, 1)


def test_a_delayed_retry_makes_nobody_give_way(desk: Desk) -> None:
    """Until it is due."""
    desk.agent(memory=100)
    idle, failing = desk.deploy("idle", memory=100, keep_warm_seconds=999), desk.deploy("f", memory=100, retry_delay=60.0)
    desk.chance = 1.0
    container, link = desk.started(failing)
    task_id = desk.submit(failing)
    desk.fail(container, link, task_id)
    desk.ask(desk.engine.fleet.gone, Gone(container, "killed"))
    other = desk.submit(idle)
    desk.tick()
    home = desk.container(idle)
    desk.finish(home, desk.connect(home), other)
    desk.tick(5)
    assert desk.status(home) is C.RUNNING
    desk.tick(60)
    assert desk.status(home) is C.STOPPING


def test_tasks_that_finish_in_leaving_containers_want_no_others(desk: Desk) -> None:
    """Else the greedy would ask for as many as it gives."""
    desk.agent(memory=400)
    greedy, late = (desk.deploy(name, memory=100, autoscaler=MANY) for name in ("greedy", "late"))
    for _ in range(4):
        desk.submit(greedy)
    desk.tick()
    for name in living(desk, greedy):
        desk.connect(name)
    for _ in range(2):
        desk.submit(late)
    desk.tick(1)
    assert len(living(desk, greedy, leaving=True)) == 2
    assert "waits" not in desk.engine.scaler.why(greedy.id, desk.now)


# warm-up


def test_a_warm_up_starts_a_container_that_stays(desk: Desk) -> None:
    """For `keep_warm_seconds` from when it has loaded, without a task; a second one starts no other."""
    desk.agent()
    deployment = desk.deploy(keep_warm_seconds=20, autoscaler=MANY)
    desk.ask(desk.engine.scaler.warm, deployment)
    desk.ask(desk.engine.scaler.warm, deployment)
    (container,) = living(desk, deployment)
    desk.tick(30)
    link = desk.connect(container, free=0)
    desk.tick(30)
    assert desk.status(container) is C.RUNNING, "it loads"
    desk.ready(container, link)
    desk.run((desk.engine.fleet.beat, container))
    desk.tick(5)
    desk.ask(desk.engine.scaler.warm, deployment)
    desk.run((desk.engine.fleet.beat, container))
    desk.tick(19)
    assert desk.status(container) is C.RUNNING
    desk.tick(1)
    assert desk.status(container) is C.STOPPING


def test_a_warm_up_replaces_what_ends(desk: Desk) -> None:
    """While it counts."""
    desk.agent()
    deployment = desk.deploy(keep_warm_seconds=20)
    desk.ask(desk.engine.scaler.warm, deployment)
    container = desk.container(deployment)
    desk.connect(container)
    desk.ask(desk.engine.fleet.gone, Gone(container, "killed"))
    desk.tick(1)
    assert len(living(desk, deployment)) == 1


def test_a_warm_up_of_a_queue_that_keeps_nothing_warm_counts_for_ten_seconds(desk: Desk) -> None:
    """It was asked for, after all."""
    desk.agent()
    deployment = desk.deploy(keep_warm_seconds=0)
    desk.ask(desk.engine.scaler.warm, deployment)
    container = desk.container(deployment)
    desk.connect(container)
    desk.tick(9)
    assert desk.status(container) is C.RUNNING
    desk.run((desk.engine.fleet.beat, container))
    desk.tick(1)
    assert desk.status(container) is C.STOPPING


def test_a_warm_up_that_starts_nothing_says_why(desk: Desk) -> None:
    """Never on this cluster, not now, or not while it is stopped."""
    desk.agent(memory=200)
    huge, first, second = desk.deploy("h", memory=999), desk.deploy("f", memory=150), desk.deploy("s", memory=150)
    with pytest.raises(Conflict, match="unschedulable: asks cpu=1 memory=999 MiB"):
        desk.ask(desk.engine.scaler.warm, huge)
    desk.submit(first)
    desk.tick()
    with pytest.raises(Unavailable, match="waits for memory: asks 150 MiB, 50 MiB are free now"):
        desk.ask(desk.engine.scaler.warm, second)
    off = desk.ask(desk.engine.switch.stop, Which(desk.workspace.id, second.id))
    with pytest.raises(Conflict, match="not active"):
        desk.ask(desk.engine.scaler.warm, off)


# devices


def test_a_device_is_its_containers_alone_until_that_is_gone(desk: Desk) -> None:
    """Also over a crash of the server and a reconnect of the agent; then the next one gets it."""
    desk.agent(gpus="A10G")
    one, two = (desk.deploy(name, gpus=("A10G",), gpu_count=1) for name in ("one", "two"))
    task_id = desk.submit(one)
    desk.tick()
    container = desk.container(one)
    desk.connect(container)
    assert desk.row(container).gpus == ("a1-0",)
    desk.submit(two)
    desk.tick()
    assert desk.engine.scaler.why(two.id, desk.now) == "waits for gpu=A10G x1: 0 of 1 are free now"
    desk.crash()
    desk.agent(gpus="A10G")
    desk.tick()
    assert living(desk, two) == []
    desk.cancel(task_id)
    desk.ask(desk.engine.fleet.gone, Gone(container, "killed by signal 9 (SIGKILL)"))
    desk.tick()
    assert desk.row(desk.container(two)).gpus == ("a1-0",)


def test_the_agent_is_told_the_devices(desk: Desk) -> None:
    """With what else a container is started from; one without gets none."""
    desk.agent(gpus="T4 A10G T4")
    two, none = desk.deploy("two", gpus=("T4",), gpu_count=2), desk.deploy("none")
    desk.submit(two)
    desk.submit(none)
    desk.ask(desk.engine.scaler.scale)
    (wanted,) = [e.message for e in desk.sent if isinstance(e, ToAgent)]
    assert isinstance(wanted, Wanted)
    assert {spec.deployment_id: spec.gpus for spec in wanted.containers} == {two.id: ("a1-0", "a1-2"), none.id: ()}


def test_without_the_device_anywhere_it_is_unschedulable(desk: Desk) -> None:
    """And an idle container of somebody else is left in peace."""
    desk.agent(gpus="T4")
    deployment = desk.deploy(gpus=("A10G",), gpu_count=1)
    desk.submit(deployment)
    desk.tick()
    why = "unschedulable: gpu=A10G x1; this cluster has: T4 x1"
    assert desk.engine.scaler.why(deployment.id, desk.now) == why
    assert desk.engine.scaler.unschedulable(deployment) == why
    desk.agent("a2", gpus="A10G")
    desk.tick()
    assert desk.row(desk.container(deployment)).agent_id == "a2"
    assert desk.engine.scaler.unschedulable(deployment) == ""


# failed starts


def test_each_further_failure_doubles_the_rest(desk: Desk) -> None:
    """From a minute to a quarter of an hour; what the last one left to read is kept."""
    desk.agent()
    deployment = desk.deploy()
    desk.submit(deployment)
    rests = []
    for number in range(8):
        desk.ask(desk.engine.scaler.scale)
        gone = Gone(desk.container(deployment), "ImportError: no", failed=True, tail=f"Traceback {number}")
        desk.ask(desk.engine.fleet.gone, gone)
        trouble = desk.engine.troubles.of(deployment.id)
        assert trouble is not None
        assert trouble.tail == f"Traceback {number}"
        rests.append(max(trouble.until - desk.now, 0.0))
        desk.now = max(desk.now, trouble.until)
    assert rests == [0, 0, 60, 120, 240, 480, 900, 900]


def test_starts_that_fail_together_double_nothing(desk: Desk) -> None:
    """Ten containers of one broken file are degraded for a minute like three; `why` tells of three."""
    desk.agent(memory=8192)
    deployment = desk.deploy(autoscaler=MANY)
    for _ in range(10):
        desk.submit(deployment)
    desk.tick()
    names = living(desk, deployment)
    desk.run(*((desk.engine.fleet.gone, Gone(name, "ImportError: no", failed=True)) for name in names))
    assert desk.engine.scaler.why(deployment.id, desk.now).startswith("degraded: 3 failed starts; next try in 60 s")


def test_a_machine_that_is_lost_makes_nobody_degraded(desk: Desk) -> None:
    """What was starting there starts elsewhere."""
    hello = desk.agent("a1")
    deployment = desk.deploy(autoscaler=MANY)
    for _ in range(5):
        desk.submit(deployment)
    desk.tick()
    desk.ask(desk.engine.fleet.agent_gone, hello)
    desk.agent("a2")
    for _ in range(int(LEASE_SECONDS) + 2):
        desk.tick(1)
    assert [desk.row(name).agent_id for name in living(desk, deployment)] == ["a2"] * 5


# what is cut off


@pytest.mark.parametrize(("retries", "status"), [(0, S.FAILED), (1, S.RETRY)])
def test_an_interrupted_attempt_is_not_counted(desk: Desk, retries: int, status: S) -> None:
    """It is run again at once, unless nothing is to run twice; the retries are all left after it."""
    desk.agent()
    deployment = desk.deploy(retries=retries)
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.fleet.drain, Drain(5.0))
    desk.now += 5
    desk.ask(desk.engine.fleet.gone, Gone(container, "ended with exit code 0"))
    task = desk.task(task_id)
    assert (task.status, task.failure and task.failure.reason) == (status, "interrupted: shut down")
    if not retries:
        return
    desk.crash()
    desk.agent()
    for attempt, after in [(2, S.RETRY), (3, S.FAILED)]:
        desk.tick(5)
        container = desk.container(deployment)
        link = desk.connect(container)
        assert desk.task(task_id).attempts == attempt
        desk.fail(container, link, task_id, attempt)
        assert desk.task(task_id).status is after
        desk.ask(desk.engine.fleet.gone, Gone(container, "killed"))


def test_a_crash_within_the_time_to_stop_is_counted(desk: Desk) -> None:
    """It ended by itself."""
    desk.agent()
    deployment = desk.deploy(retries=1)
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.fleet.drain, Drain(5.0))
    desk.now += 1
    desk.ask(desk.engine.fleet.gone, Gone(container, "killed by signal 9 (SIGKILL)"))
    failure = desk.task(task_id).failure
    assert failure is not None
    assert (failure.kind, failure.reason) == (FailureKind.LOST, "lost: killed by signal 9 (SIGKILL)")
