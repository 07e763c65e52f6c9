"""Containers from their first call to their end, as agents, runners and the clock tell it."""

from __future__ import annotations

import pytest

from treadle.engine.effects import ScaleDue, ToAgent
from treadle.engine.fleet import Drain, Gone
from treadle.model.container import ContainerStatus
from treadle.model.errors import NotFound
from treadle.model.task import Failure, FailureKind, TaskStatus
from treadle.model.wire import LEASE_SECONDS, AttemptRef, ContainerSpec, Wanted

from .making import NOW, Desk

C, S = ContainerStatus, TaskStatus


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.agent()
    return desk


def wanted(desk: Desk, agent_id: str = "a1") -> list[ContainerSpec] | None:
    """What the last batch told an agent to run; None when it was told nothing."""
    told = [e.message for e in desk.sent if isinstance(e, ToAgent) and e.agent_id == agent_id]
    assert all(isinstance(message, Wanted) for message in told)
    return told[-1].containers if told else None


def gone(desk: Desk, container_id: str, reason: str = "ended", *, failed: bool = False) -> None:
    desk.ask(desk.engine.fleet.gone, Gone(container_id, reason, failed))


def beat_and_sweep(desk: Desk, seconds: int, *beating: str) -> None:
    """Each second a sweep; heartbeats of these containers."""
    for _ in range(seconds):
        desk.now += 1
        desk.run(*((desk.engine.fleet.beat, name) for name in beating), (desk.engine.fleet.sweep, None))


# connect


def test_a_call_that_was_overtaken_by_a_later_one_changes_nothing(desk: Desk) -> None:
    """The hello of a broken link may be read after that of the next one: what the later one has told counts."""
    deployment = desk.deploy()
    container, link = desk.started(deployment, free=0)
    desk.connect(container, free=1, link=link - 1)
    assert desk.free(deployment) == 0
    desk.ready(container, link)
    assert desk.free(deployment) == 1


def test_the_first_call_makes_a_container_run(desk: Desk) -> None:
    """It is running from then on, holds a lease, and takes work as soon as a child is free."""
    deployment = desk.deploy()
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    container = desk.container(deployment)
    assert desk.status(container) is C.STARTING
    desk.now += 2
    link = desk.connect(container, free=0)
    row = desk.row(container)
    assert (row.status, row.started_at, row.lease_until, row.limits) == (
        C.RUNNING, NOW + 2, NOW + 2 + LEASE_SECONDS, "watchdog",
    )  # fmt: skip
    assert desk.work() == []
    desk.ready(container, link)
    assert desk.work(container) == [(task_id, 1)]


def test_a_container_that_is_over_is_refused(desk: Desk) -> None:
    """Also one that never was."""
    container, _ = desk.started(desk.deploy())
    gone(desk, container)
    for name in (container, "taskqueue-x-1"):
        with pytest.raises(NotFound, match=name):
            desk.connect(name)


def test_a_closed_link_gets_no_work_and_keeps_its_lease(desk: Desk) -> None:
    """Tasks wait until the runner calls again, or somebody else is there."""
    deployment = desk.deploy()
    container, link = desk.started(deployment)
    desk.disconnect(container, link)
    task_id = desk.submit(deployment)
    assert (desk.work(), desk.status(container)) == ([], C.RUNNING)
    desk.connect(container)
    assert desk.work(container) == [(task_id, 1)]


def test_the_order_of_a_batch_does_not_cut_a_new_link_off(desk: Desk) -> None:
    """The end of the old link may be handled after the start of the new one."""
    deployment = desk.deploy()
    container, old = desk.started(deployment)
    desk.connect(container, link=999)
    desk.disconnect(container, old)
    task_id = desk.submit(deployment)
    assert desk.work(container) == [(task_id, 1)]


# the end of containers


def test_what_ran_in_a_container_that_ended_is_retried(desk: Desk) -> None:
    """At once elsewhere, if there is a free child; the reason is told."""
    deployment = desk.deploy(retry_delay=0.0)
    one, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    gone(desk, one, "killed by signal 9 (SIGKILL)")
    task = desk.task(task_id)
    assert (task.status, desk.status(one)) == (S.RETRY, C.STOPPED)
    assert task.failure is not None
    assert (task.failure.kind, task.failure.reason) == (FailureKind.LOST, "lost: killed by signal 9 (SIGKILL)")
    assert ScaleDue() in desk.sent
    assert wanted(desk) == []
    desk.ask(desk.engine.scaler.scale)
    two = desk.container(deployment)
    desk.connect(two)
    assert desk.work(two) == [(task_id, 2)]


def test_containers_that_end_together_are_not_given_each_others_tasks(desk: Desk) -> None:
    """No attempt is wasted on a container that is known to be gone."""
    deployment = desk.deploy(retry_delay=0.0, autoscaler=desk.scale_of(2))
    names, tasks = desk.pair(deployment)
    desk.run(*((desk.engine.fleet.gone, Gone(name, "machine lost")) for name in names))
    assert desk.work() == []
    assert [desk.task(t).attempts for t in tasks] == [1, 1]


def test_an_end_is_told_twice_and_counts_once(desk: Desk) -> None:
    """The runner's own word and the agent's."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    gone(desk, container)
    gone(desk, container)
    assert desk.task(task_id).attempts == 1
    assert len(desk.store.attempts(task_id)) == 1


# leases


def test_heartbeats_keep_a_container_alive(desk: Desk) -> None:
    """For as long as they come."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    desk.submit(deployment)
    beat_and_sweep(desk, 40, container)
    assert desk.status(container) is C.RUNNING


def test_a_silent_container_is_killed_before_its_tasks_run_elsewhere(desk: Desk) -> None:
    """Its agent is there: the tasks are retried when it says that the container is gone."""
    deployment = desk.deploy(retry_delay=0.0)
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    beat_and_sweep(desk, 16)
    assert desk.status(container) is C.STOPPING
    assert desk.task(task_id).status is S.RUNNING
    assert wanted(desk) == []
    gone(desk, container, "killed")
    task = desk.task(task_id)
    assert task.status is S.RETRY
    assert task.failure is not None and task.failure.reason == "lost: no heartbeat for 15 seconds"


def test_a_kill_that_was_not_written_is_asked_for_again(desk: Desk) -> None:
    """After a full disk too its agent kills it before its tasks run elsewhere."""
    deployment = desk.deploy(retry_delay=0.0)
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    beat_and_sweep(desk, 15)
    desk.store.broken = 1
    beat_and_sweep(desk, 1)
    assert desk.status(container) is C.RUNNING
    beat_and_sweep(desk, 1)
    assert (desk.status(container), desk.task(task_id).status, wanted(desk)) == (C.STOPPING, S.RUNNING, [])


def test_a_silent_container_of_a_silent_agent_is_lost(desk: Desk) -> None:
    """Nobody could kill it: fencing alone keeps it from reporting."""
    deployment = desk.deploy(retry_delay=0.0)
    agent = desk.agent()
    container, link = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.fleet.agent_gone, agent)
    beat_and_sweep(desk, 16)
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
    beat_and_sweep(desk, 16)
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
    beat_and_sweep(desk, 17)
    assert desk.status(container) is C.STOPPING


def test_a_container_that_never_calls_is_given_up(desk: Desk) -> None:
    """After the time that building its image may take; that is a failed start."""
    deployment = desk.deploy()
    desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    container = desk.container(deployment)
    beat_and_sweep(desk, 301)
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
    beat_and_sweep(desk, 10)
    back = desk.agent()
    beat_and_sweep(desk, 20)
    assert desk.status(container) is C.STARTING
    desk.ask(desk.engine.fleet.agent_gone, back)
    beat_and_sweep(desk, 16)
    assert desk.status(container) is C.STOPPED


# agents


def test_an_agent_is_told_what_to_run(desk: Desk) -> None:
    """With the token until the runner has called, and never again after."""
    deployment = desk.deploy()
    desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    (spec,) = wanted(desk) or []
    container = desk.container(deployment)
    assert (spec.container_id, spec.deployment_id, spec.config, spec.started) == (
        container, deployment.id, deployment.config, False,
    )  # fmt: skip
    assert spec.token
    desk.connect(container)
    desk.agent(running=[container])
    (spec,) = wanted(desk) or []
    assert (spec.token, spec.started) == ("", True)


def test_an_agents_old_link_may_end_after_its_new_one_began(desk: Desk) -> None:
    """It is there all the same."""
    old = desk.agent()
    desk.agent()
    desk.ask(desk.engine.fleet.agent_gone, old)
    deployment = desk.deploy()
    desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    assert desk.container(deployment)


# the server


def test_a_new_server_gives_running_attempts_one_lease(desk: Desk) -> None:
    """A runner that comes back in time goes on; what it holds is not run twice."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.now += 1000
    desk.crash()
    assert desk.row(container).lease_until == desk.now + LEASE_SECONDS
    beat_and_sweep(desk, 14)
    link = desk.connect(container, free=0, held=[AttemptRef(task_id, 1)])
    assert (desk.task(task_id).status, desk.work()) == (S.RUNNING, [])
    desk.finish(container, link, task_id)
    assert desk.task(task_id).status is S.COMPLETE


def test_a_new_server_loses_what_does_not_come_back(desk: Desk) -> None:
    """After one lease."""
    deployment = desk.deploy(retry_delay=0.0)
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.crash()
    beat_and_sweep(desk, 16)
    assert (desk.status(container), desk.task(task_id).status) == (C.STOPPED, S.RETRY)


def test_a_new_server_sends_what_the_old_one_had_committed_and_not_sent(desk: Desk) -> None:
    """The claim is on disk, the work was never on the wire."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment, payload=b'{"args":[],"kwargs":{"x":1}}')
    desk.crash()
    desk.agent(running=[container])
    desk.connect(container, free=1, held=[])
    (work,) = desk.to_runner(type(desk.to_runner(object)[0]), container)
    assert (work.ref, work.payload) == (AttemptRef(task_id, 1), b'{"args":[],"kwargs":{"x":1}}')


def test_a_new_server_knows_how_many_wait(desk: Desk) -> None:
    """Counts are made from the rows, and waiting tasks are given out."""
    deployment = desk.deploy(max_pending_tasks=3)
    container, _ = desk.started(deployment)
    first, second = desk.submit(deployment), desk.submit(deployment)
    desk.crash()
    assert desk.counts(deployment) == (1, 1)
    desk.agent()
    link = desk.connect(container, free=0, held=[AttemptRef(first, 1)])
    desk.finish(container, link, first)
    assert desk.work(container) == [(second, 1)]


def test_draining_lets_running_tasks_finish(desk: Desk) -> None:
    """Containers take no more work, those that have not begun end at once, and none is started."""
    deployment = desk.deploy(autoscaler=desk.scale_of(2))
    container, link = desk.started(deployment)
    running, waiting = desk.submit(deployment), desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    starting = desk.container(deployment)
    desk.ask(desk.engine.fleet.drain, Drain(30.0))
    assert [s.grace for s in desk.stopped(container)] == [30.0]
    assert (desk.status(container), desk.status(starting)) == (C.STOPPING, C.STOPPED)
    desk.finish(container, link, running)
    assert (desk.task(running).status, desk.work()) == (S.COMPLETE, [])
    desk.ask(desk.engine.scaler.scale)
    assert len(desk.engine.roster.live) == 1
    gone(desk, container)
    assert (desk.engine.roster.live, desk.task(waiting).status) == ({}, S.PENDING)


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


def test_a_stopping_container_past_its_grace_is_taken_away(desk: Desk) -> None:
    """Heartbeats do not keep it: its agent is to kill it, and what ran there was interrupted, at no charge."""
    deployment = desk.deploy(retry_delay=0.0)
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.fleet.drain, Drain(5.0))
    beat_and_sweep(desk, 19, container)
    assert (desk.status(container), desk.task(task_id).status) == (C.STOPPING, S.RUNNING)
    beat_and_sweep(desk, 8, container)
    assert (desk.status(container), desk.task(task_id).status) == (C.STOPPED, S.RETRY)
    assert desk.task(task_id).failure == Failure(FailureKind.INTERRUPTED, "interrupted: shut down")


def test_a_stop_that_was_not_written_is_none(desk: Desk) -> None:
    """After a failed commit the container is in the line as before."""
    deployment = desk.deploy(keep_warm_seconds=0)
    container, _ = desk.started(deployment)
    desk.store.broken = 1
    (answer,) = desk.run((desk.engine.scaler.scale, None))
    assert isinstance(answer, OSError)
    task_id = desk.submit(deployment)
    assert desk.work(container) == [(task_id, 1)]
