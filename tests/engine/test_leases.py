"""Leases: who is silent for too long is lost, and nobody else, whatever clocks and disks do meanwhile."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from treadle.engine.fleet import PAUSE, Connected
from treadle.model.container import ContainerStatus
from treadle.model.task import TaskStatus
from treadle.model.wire import LEASE_SECONDS, Hello

from .making import Desk

C, S = ContainerStatus, TaskStatus


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.agent()
    return desk


def test_heartbeats_keep_a_container_alive(desk: Desk) -> None:
    """For as long as they come."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    desk.submit(deployment)
    desk.beat_and_sweep(40, container)
    assert desk.status(container) is C.RUNNING


def test_a_silent_container_is_killed_before_its_tasks_run_elsewhere(desk: Desk) -> None:
    """Its agent is there: the tasks are retried when it says that the container is gone."""
    deployment = desk.deploy(retry_delay=0.0)
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.beat_and_sweep(16)
    assert desk.status(container) is C.STOPPING
    assert desk.task(task_id).status is S.RUNNING
    assert desk.wanted() == []
    desk.gone(container, "killed")
    task = desk.task(task_id)
    assert task.status is S.RETRY
    assert task.failure is not None and task.failure.reason == "lost: no heartbeat for 15 seconds"


def test_a_kill_that_was_not_written_is_asked_for_again(desk: Desk) -> None:
    """After a full disk too its agent kills it before its tasks run elsewhere."""
    deployment = desk.deploy(retry_delay=0.0)
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.beat_and_sweep(15)
    desk.store.broken = 1
    desk.beat_and_sweep(1)
    assert desk.status(container) is C.RUNNING
    desk.beat_and_sweep(1)
    assert (desk.status(container), desk.task(task_id).status, desk.wanted()) == (C.STOPPING, S.RUNNING, [])


def test_a_silent_container_of_a_silent_agent_is_lost(desk: Desk) -> None:
    """Nobody could kill it: fencing alone keeps it from reporting."""
    deployment = desk.deploy(retry_delay=0.0)
    agent = desk.agent()
    container, link = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.fleet.agent_gone, agent)
    desk.beat_and_sweep(16)
    assert (desk.status(container), desk.task(task_id).status) == (C.STOPPED, S.RETRY)
    assert [s.grace for s in desk.stopped(container)] == [0.0]
    desk.finish(container, link, task_id)
    assert desk.task(task_id).status is S.RETRY


def test_after_a_pause_of_the_server_containers_get_one_more_lease(desk: Desk) -> None:
    """A machine that slept finds its containers as it left them."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    desk.submit(deployment)
    desk.now += 3600
    desk.ask(desk.engine.fleet.sweep)
    assert desk.status(container) is C.RUNNING
    assert desk.row(container).lease_until == desk.now + LEASE_SECONDS
    desk.beat_and_sweep(16)
    assert desk.status(container) is C.STOPPING


def test_a_pause_leaves_nobody_the_rest_of_a_lease(desk: Desk) -> None:
    """A clock that is set forward by less than a lease is no silence either: the next heartbeat may take its time."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    desk.submit(deployment)
    desk.ask(desk.engine.fleet.sweep)
    desk.now += LEASE_SECONDS - 1
    desk.ask(desk.engine.fleet.sweep)
    desk.now += 3
    desk.ask(desk.engine.fleet.sweep)
    assert desk.status(container) is C.RUNNING


def test_a_clock_that_is_set_back_delays_nobody(desk: Desk) -> None:
    """A silent container is noticed one lease later, not when the clock has caught up."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    desk.submit(deployment)
    desk.now -= 3600
    desk.beat_and_sweep(17)
    assert desk.status(container) is C.STOPPING


def test_a_container_that_never_calls_is_given_up(desk: Desk) -> None:
    """After the time that building its image may take; that is a failed start."""
    deployment = desk.deploy()
    desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    container = desk.container(deployment)
    desk.beat_and_sweep(301)
    assert (desk.status(container), desk.row(container).reason) == (C.STOPPED, "its runner did not call in time")
    assert desk.engine.scaler.why(deployment.id, desk.now) == "its runner did not call in time"


def test_a_container_that_a_lost_machine_was_to_start_is_given_up_soon(desk: Desk) -> None:
    """A dead machine is seen within a lease, also when nothing ran there yet; if it comes back, all is as before."""
    agent = desk.agent()
    deployment = desk.deploy()
    desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    container = desk.container(deployment)
    desk.ask(desk.engine.fleet.agent_gone, agent)
    desk.beat_and_sweep(10)
    back = desk.agent()
    desk.beat_and_sweep(20)
    assert desk.status(container) is C.STARTING
    desk.ask(desk.engine.fleet.agent_gone, back)
    desk.beat_and_sweep(16)
    assert desk.status(container) is C.STOPPED


def test_a_lease_that_was_granted_after_a_pause_and_not_written_is_granted_again(desk: Desk) -> None:
    """A full disk at that moment makes nobody lost."""
    container, _ = desk.started(desk.deploy())
    desk.ask(desk.engine.fleet.sweep)
    desk.now += 90
    desk.store.broken = 1
    desk.run((desk.engine.fleet.sweep, None))
    desk.now += 1
    desk.ask(desk.engine.fleet.sweep)
    assert desk.status(container) is C.RUNNING


@pytest.mark.parametrize("seconds", [14, 16, 20, 40])
def test_a_full_disk_makes_nobody_silent(desk: Desk, seconds: int) -> None:
    """Heartbeats that find no room are heard all the same, while looks that write nothing are committed."""
    container, _ = desk.started(desk.deploy())
    desk.store.broken = 1000
    for second in range(1, seconds + 1):
        desk.beat_and_sweep(1)
        if second % 3 == 0:
            desk.run((desk.engine.fleet.beat, container))
    desk.store.broken = 0
    desk.beat_and_sweep(1)
    assert desk.status(container) is C.RUNNING


def test_who_falls_silent_while_the_disk_is_full_is_lost_once_there_is_room(desk: Desk) -> None:
    """What was heard counts for one lease."""
    container, _ = desk.started(desk.deploy())
    desk.store.broken = 1000
    desk.beat_and_sweep(3, container)
    desk.beat_and_sweep(13)
    desk.store.broken = 0
    desk.beat_and_sweep(1)
    assert desk.status(container) is C.RUNNING
    desk.beat_and_sweep(2)
    assert desk.status(container) is C.STOPPING


def test_a_hello_that_was_not_written_is_heard(desk: Desk) -> None:
    """A runner that calls in vain again and again is alive, and its container is not killed for silence."""
    container, link = desk.started(desk.deploy())
    desk.disconnect(container, link)
    for second in range(1, 20):
        desk.beat_and_sweep(1)
        desk.store.broken = 1
        desk.run((desk.engine.fleet.connect, Connected(Hello(container, [], 1), link + second)))
        desk.store.broken = 0
    assert desk.status(container) is C.RUNNING


def test_what_was_heard_before_the_clock_was_set_back_counts_no_more(desk: Desk) -> None:
    """It would be in time again when the clock has caught up, or for as long as that takes."""
    container, _ = desk.started(desk.deploy())
    desk.beat_and_sweep(3, container)
    desk.now -= 60
    desk.beat_and_sweep(17)
    assert desk.status(container) is C.STOPPING


PHASES = strategies.lists(
    strategies.tuples(
        strategies.sampled_from([0.0, 0.0, 4.0, -3.0, -60.0, 17.0, 90.0]),  # what the clock is set by
        strategies.integers(1, 20),  # seconds that pass
        strategies.booleans(),  # the runner beats
        strategies.booleans(),  # there is room
    ),
    max_size=10,
)


@given(PHASES)
@settings(suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture], max_examples=60)
def test_whoever_is_heard_is_kept_and_nobody_else(
    quick_folder: Path, phases: list[tuple[float, int, bool, bool]]
) -> None:
    """Whatever the clock and the disk do, and for no longer than a lease."""
    with closing(Desk(Path(mkdtemp(dir=quick_folder)))) as desk:
        desk.agent()
        container, _ = desk.started(desk.deploy())
        silent = 0.0  # seconds that seem to have passed since the last heartbeat
        for jump, seconds, beats, room in phases:
            desk.now += jump
            silent += jump if 0 < jump < PAUSE else 0
            desk.store.broken = 0 if room else 1000
            for second in range(seconds):
                silent += 1
                desk.beat_and_sweep(1)
                if desk.status(container) is not C.RUNNING:
                    assert silent >= LEASE_SECONDS
                    return
                if beats and second % 3 == 0:
                    silent = 0.0
                    desk.run((desk.engine.fleet.beat, container))
        desk.store.broken = 0
        desk.beat_and_sweep(40)
        assert desk.status(container) is not C.RUNNING
