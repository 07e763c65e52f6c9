"""Which finished tasks are forgotten, and in which order with the bytes of their outputs."""

from __future__ import annotations

import pytest

from treadle.engine.outputs import SaveOutput
from treadle.engine.retention import LARGEST, SLICE, Cap, Doomed, Keep
from treadle.model.log import Extent, Line, NewChunk, Stream, pack

from .making import Desk

DAY = Keep(86_400.0)


def ended(desk: Desk, *, output: bool = False) -> str:
    """A task that has just ended."""
    desk.agent()
    deployment = desk.deploy()
    container_id, link = desk.started(deployment)
    task_id = desk.submit(deployment)
    if output:
        desk.ask(desk.engine.outputs.save, SaveOutput(f"o-{task_id}", task_id, 1, "file", 1, "outputs/key"))
    desk.finish(container_id, link, task_id)
    return task_id


def walk(desk: Desk) -> Doomed:
    doomed: Doomed = desk.ask(desk.engine.retention.walk, DAY)
    return doomed


def test_what_ended_long_enough_ago_is_forgotten_at_once(desk: Desk) -> None:
    """In one step, and not a moment too early."""
    task_id = ended(desk)
    desk.now += 86_399
    assert walk(desk) == Doomed([], [], more=False)
    assert desk.store.task(task_id) is not None
    desk.now += 2
    assert walk(desk) == Doomed([], [], more=False)
    assert desk.store.task(task_id) is None


def test_a_task_with_outputs_stays_until_their_bytes_are_gone(desk: Desk) -> None:
    """It is named with the keys; whoever has removed the bytes says so, and then the rows go."""
    task_id = ended(desk, output=True)
    desk.now += 86_401
    doomed = walk(desk)
    assert (doomed.blob_keys, len(doomed.task_seqs)) == (["outputs/key"], 1)
    assert walk(desk) == doomed, "a crash before the second step loses nothing"
    desk.ask(desk.engine.retention.forget, doomed)
    assert desk.store.task(task_id) is None
    assert desk.store.outputs(task_id) == []


def test_what_waits_or_runs_is_kept_however_old(desk: Desk) -> None:
    """Only ends count."""
    desk.agent()
    deployment = desk.deploy()
    desk.started(deployment)
    running, waiting = desk.submit(deployment), desk.submit(deployment)
    desk.now += 10 * 86_400
    walk(desk)
    assert desk.store.task(running) is not None
    assert desk.store.task(waiting) is not None


def test_a_walk_goes_slice_by_slice(desk: Desk) -> None:
    """A slice is one transaction: there are more as long as it was full."""
    deployment = desk.deploy(max_pending_tasks=1000)
    ids = [desk.submit(deployment) for _ in range(SLICE + 1)]
    desk.cancel(*ids)
    desk.now += 86_401
    assert walk(desk).more
    assert [desk.store.task(task_id) is None for task_id in ids] == [True] * SLICE + [False]
    assert not walk(desk).more
    assert desk.store.task(ids[-1]) is None


@pytest.mark.parametrize(("came", "looked_at"), [(10, SLICE), (200, 400), (700, LARGEST)])
def test_a_walk_is_faster_than_tasks_come(desk: Desk, came: int, looked_at: int) -> None:
    """A slice is twice as large as what was accepted since the one before, within bounds."""
    deployment = desk.deploy(max_pending_tasks=5_000)
    ids = [desk.submit(deployment) for _ in range(SLICE + LARGEST + 1)]
    desk.cancel(*ids)
    desk.now += 86_401
    walk(desk)
    for _ in range(came):
        desk.submit(deployment)
    assert walk(desk).more
    assert sum(desk.store.task(task_id) is None for task_id in ids) == SLICE + looked_at


def test_the_oldest_logs_go_in_slices_until_what_is_left_is_within_the_cap(desk: Desk) -> None:
    """What is within it is left alone."""
    desk.agent()
    container_id, _ = desk.started(desk.deploy())
    body = pack([Line(desk.now, Stream.STDOUT, "x" * 1000)])
    with desk.store.transaction():
        desk.store.insert_logs([NewChunk(container_id, None, 0, False, Extent(n, n), body) for n in range(3 * SLICE)])
    cap = Cap((2 * SLICE - 5) * len(body))
    looks = [desk.ask(desk.engine.retention.trim_logs, cap) for _ in range(3)]
    assert looks == [True, False, False]
    assert desk.store.log_bytes() == cap.size
