"""How many containers each deployment has over time, and what is said when none starts."""

from __future__ import annotations

import msgspec
import pytest

from treadle.engine.catalog import Deploy
from treadle.engine.effects import ScaleDue
from treadle.engine.fleet import Gone
from treadle.engine.switch import Which
from treadle.model.container import ContainerStatus
from treadle.model.deployment import Autoscaler, Deployment

from .making import IMAGE, SOURCE, Desk

C = ContainerStatus


def running(desk: Desk, deployment: Deployment) -> int:
    """Containers that are there or on their way, and are not leaving."""
    return sum(c.status is not C.STOPPING for c in desk.engine.roster.of(deployment.id))


def scale(desk: Desk) -> None:
    desk.ask(desk.engine.scaler.scale)


def finish_start(desk: Desk, deployment: Deployment) -> tuple[str, int]:
    container = desk.container(deployment)
    return container, desk.connect(container)


def fail_start(desk: Desk, deployment: Deployment, *, reason: str = "ImportError: no", failed: bool = True) -> None:
    desk.ask(desk.engine.fleet.gone, Gone(desk.container(deployment), reason, failed))
    scale(desk)


@pytest.mark.parametrize(
    ("tasks", "most", "per", "expected"), [(0, 3, 1, 0), (1, 3, 1, 1), (2, 3, 1, 2), (9, 3, 1, 3), (9, 5, 4, 3)]
)
def test_containers_follow_the_queue(desk: Desk, tasks: int, most: int, per: int, expected: int) -> None:
    """By the formula, and no more however often it is looked at."""
    desk.agent()
    deployment = desk.deploy(autoscaler=Autoscaler(max_containers=most, tasks_per_container=per))
    for _ in range(tasks):
        desk.submit(deployment)
    for _ in range(3):
        scale(desk)
        assert running(desk, deployment) == expected


def test_it_goes_back_to_zero(desk: Desk) -> None:
    """An idle container stays warm for `keep_warm_seconds`, and not while a task runs."""
    desk.agent()
    deployment = desk.deploy(keep_warm_seconds=10)
    desk.submit(deployment)
    scale(desk)
    container, link = finish_start(desk, deployment)
    desk.now += 60
    scale(desk)
    assert running(desk, deployment) == 1
    desk.finish(container, link, desk.task_of(container))
    desk.now += 9.9
    scale(desk)
    assert running(desk, deployment) == 1
    desk.now += 0.1
    scale(desk)
    assert running(desk, deployment) == 0
    assert [s.reason for s in desk.stopped(container)] == ["idle"]
    assert desk.status(container) is C.STOPPING


def test_work_that_comes_while_it_leaves_gets_another_container(desk: Desk) -> None:
    """One that is stopping takes no more."""
    desk.agent()
    deployment = desk.deploy(keep_warm_seconds=0)
    container, _ = desk.started(deployment)
    scale(desk)
    assert desk.status(container) is C.STOPPING
    task_id = desk.submit(deployment)
    assert desk.work() == []
    scale(desk)
    assert desk.container(deployment) != container
    finish_start(desk, deployment)
    assert desk.work() == [(task_id, 1)]


def test_the_least_is_always_there(desk: Desk) -> None:
    """Without any task, and again when one of them has gone."""
    desk.agent()
    deployment = desk.deploy(keep_warm_seconds=0, autoscaler=Autoscaler(max_containers=3, min_containers=2))
    scale(desk)
    assert running(desk, deployment) == 2
    container, _ = finish_start(desk, deployment)
    desk.now += 100
    scale(desk)
    assert running(desk, deployment) == 2
    desk.ask(desk.engine.fleet.gone, Gone(container, "killed"))
    assert running(desk, deployment) == 1
    scale(desk)
    assert running(desk, deployment) == 2


def test_only_the_newest_version_keeps_its_least(desk: Desk) -> None:
    """Containers of the one before leave when they are idle; drafts never had any."""
    desk.agent()
    least = Autoscaler(max_containers=3, min_containers=1)
    old = desk.deploy(keep_warm_seconds=0, autoscaler=least)
    scale(desk)
    finish_start(desk, old)
    new = desk.deploy(keep_warm_seconds=0, autoscaler=least)
    draft = desk.deploy("", autoscaler=least)
    scale(desk)
    assert [running(desk, d) for d in (old, new, draft)] == [0, 1, 0]


def test_an_older_version_that_is_started_again_does_not_stand(desk: Desk) -> None:
    """The highest version counts, whatever was switched last; also after a new start."""
    desk.agent()
    least = Autoscaler(max_containers=3, min_containers=1)
    old, new = desk.deploy(autoscaler=least), desk.deploy(autoscaler=least)
    desk.ask(desk.engine.switch.start, Which(desk.workspace.id, old.id))
    scale(desk)
    assert [running(desk, d) for d in (old, new)] == [0, 1]
    desk.crash()
    desk.agent()
    scale(desk)
    assert [running(desk, d) for d in (old, new)] == [0, 1]


def test_a_version_that_was_not_written_does_not_stand(desk: Desk) -> None:
    """Even if the one before it was started in the same transaction, and the newest of its name looked up there."""
    desk.agent()
    least = Autoscaler(max_containers=3, min_containers=1)
    old = desk.deploy(autoscaler=least)
    config = msgspec.structs.replace(old.config, retries=7)
    deploy = Deploy("new", desk.workspace.id, old.name, config, SOURCE, IMAGE.id)
    desk.store.broken = 1
    desk.run((desk.engine.switch.deploy, deploy), (desk.engine.switch.start, Which(desk.workspace.id, old.id)))
    scale(desk)
    assert [container.deployment_id for container in desk.engine.roster.live.values()] == [old.id]


def test_a_version_stands_by_the_commit_that_writes_it(desk: Desk) -> None:
    """There is no moment, and no full disk, between the two: an older one would keep its containers for good."""
    desk.agent()
    least = Autoscaler(max_containers=3, min_containers=1)
    old = desk.deploy(autoscaler=least)
    deploy = Deploy("new", desk.workspace.id, old.name, old.config, SOURCE, IMAGE.id)
    desk.ask(desk.engine.switch.deploy, deploy)
    assert ScaleDue() in desk.sent
    scale(desk)
    assert [container.deployment_id for container in desk.engine.roster.live.values()] == ["new"]


def test_memory_is_given_out_once(desk: Desk) -> None:
    """Who finds none free waits, says so, and starts when there is some."""
    desk.agent(memory=256)
    one, two = desk.deploy("one", memory=200), desk.deploy("two", memory=200)
    desk.submit(one)
    scale(desk)
    desk.submit(two)
    scale(desk)
    assert [running(desk, d) for d in (one, two)] == [1, 0]
    assert desk.engine.scaler.why(two.id, desk.now) == "waits for memory: asks 200 MiB, 56 MiB are free now"
    desk.cancel(*(t.id for t in desk.tasks(one)))
    desk.ask(desk.engine.fleet.gone, Gone(desk.container(one), "ended"))
    scale(desk)
    assert running(desk, two) == 1
    assert desk.engine.scaler.why(two.id, desk.now) == "a container is starting"


def test_without_an_agent_nothing_starts(desk: Desk) -> None:
    """Until one connects."""
    deployment = desk.deploy()
    desk.submit(deployment)
    scale(desk)
    assert desk.engine.scaler.why(deployment.id, desk.now) == "no agent is connected"
    desk.agent()
    scale(desk)
    assert running(desk, deployment) == 1


def test_a_lack_of_room_that_is_over_is_not_told(desk: Desk) -> None:
    """The reason to wait is that of now."""
    desk.agent(memory=256)
    deployment = desk.deploy(memory=200, autoscaler=Autoscaler(max_containers=2))
    first, second = desk.submit(deployment), desk.submit(deployment)
    scale(desk)
    finish_start(desk, deployment)
    scale(desk)
    assert "waits for memory" in desk.engine.scaler.why(deployment.id, desk.now)
    desk.cancel(first)
    scale(desk)
    assert desk.engine.scaler.why(deployment.id, desk.now) == "every child is busy with tasks ahead of it"
    assert desk.task(second)


@pytest.mark.parametrize("failed", [True, False])
def test_three_failed_starts_bring_a_cooldown(desk: Desk, failed: bool) -> None:
    """Whether the failure was told or the container ended before a child was ready; then it is tried again."""
    desk.agent()
    deployment = desk.deploy()
    desk.submit(deployment)
    scale(desk)
    for _ in range(2):
        fail_start(desk, deployment, failed=failed)
        assert running(desk, deployment) == 1
    fail_start(desk, deployment, failed=failed)
    assert running(desk, deployment) == 0
    why = "degraded: 3 failed starts; next try in 60 s: ImportError: no"
    assert desk.engine.scaler.why(deployment.id, desk.now) == why
    desk.now += 59
    scale(desk)
    assert running(desk, deployment) == 0
    desk.now += 1
    scale(desk)
    assert running(desk, deployment) == 1
    fail_start(desk, deployment, failed=failed)
    assert running(desk, deployment) == 0
    assert "4 failed starts" in desk.engine.scaler.why(deployment.id, desk.now)


def test_a_child_that_loads_ends_the_trouble(desk: Desk) -> None:
    """Failures count in a row only."""
    desk.agent()
    deployment = desk.deploy()
    desk.submit(deployment)
    scale(desk)
    for _ in range(2):
        fail_start(desk, deployment)
    container, link = desk.container(deployment), desk.connect(desk.container(deployment), free=0)
    assert desk.engine.scaler.why(deployment.id, desk.now) == "ImportError: no"
    desk.ready(container, link)
    assert desk.engine.scaler.why(deployment.id, desk.now) == "every child is busy with tasks ahead of it"
    for _ in range(2):
        fail_start(desk, deployment, failed=True)
    assert running(desk, deployment) == 1


def test_an_end_after_work_is_no_failed_start(desk: Desk) -> None:
    """A container in which tasks could run may end as often as it likes."""
    desk.agent()
    deployment = desk.deploy(retries=100, retry_delay=0.0)
    desk.submit(deployment)
    scale(desk)
    for _ in range(5):
        finish_start(desk, deployment)
        fail_start(desk, deployment, reason="killed", failed=False)
    assert running(desk, deployment) == 1


def test_what_ended_while_the_server_was_down_is_no_failed_start(desk: Desk) -> None:
    """A machine that was started anew does not make its deployments degraded."""
    desk.agent()
    deployment = desk.deploy(autoscaler=Autoscaler(max_containers=5))
    for _ in range(5):
        desk.submit(deployment)
    scale(desk)
    names = [c.id for c in desk.engine.roster.of(deployment.id)]
    desk.crash()
    desk.agent()
    desk.run(*((desk.engine.fleet.gone, Gone(name, "its processes are gone")) for name in names))
    scale(desk)
    assert running(desk, deployment) == 5


def test_a_failed_start_that_is_told_until_it_is_written_is_one(desk: Desk) -> None:
    """An agent repeats it while the disk is full: the next start comes as after any first failure."""
    desk.agent()
    deployment = desk.deploy()
    desk.submit(deployment)
    scale(desk)
    desk.store.broken = 5
    for _ in range(6):
        desk.run((desk.engine.fleet.gone, Gone(desk.container(deployment), "no room", failed=True)))
    trouble = desk.engine.troubles.of(deployment.id)
    assert (trouble and trouble.failures, desk.engine.scaler.why(deployment.id, desk.now)) == (1, "no room")
    scale(desk)
    assert running(desk, deployment) == 1


def test_one_deployments_trouble_is_not_anothers(desk: Desk) -> None:
    """A broken handler keeps nobody else from starting."""
    desk.agent()
    broken, fine = desk.deploy("broken"), desk.deploy("fine")
    desk.submit(broken)
    scale(desk)
    for _ in range(3):
        fail_start(desk, broken)
    desk.submit(fine)
    scale(desk)
    assert [running(desk, d) for d in (broken, fine)] == [0, 1]
