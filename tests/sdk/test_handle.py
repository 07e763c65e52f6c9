"""TaskHandle: asks the server each time, waits without polling, and raises what went wrong."""

from __future__ import annotations

import threading

import pytest

from sdk.peer import TIME, Peer, task_view
from treadle.client import Client
from treadle.model.api import AttemptView, OutputView
from treadle.model.errors import NotFound, TreadleError
from treadle.model.task import TaskStatus
from treadle.sdk.handle import TaskFailed, TaskHandle


@pytest.fixture
def handle(client: Client, peer: Peer) -> TaskHandle:
    """A handle on a task that waits."""
    peer.set_task(task_view("task-1", why="waits for a container"))
    return TaskHandle("task-1", client)


def test_a_waiting_task_has_no_result_yet(handle: TaskHandle) -> None:
    """Without waiting, result() is None until the task is final."""
    assert handle.id == "task-1"
    assert handle.status() is TaskStatus.PENDING
    assert not handle.is_complete()
    assert handle.result() is None


@pytest.mark.parametrize(
    ("raw", "value"),
    [("0", 0), ('""', ""), ("[]", []), ("{}", {}), ("false", False), ("null", None), ('{"a": [1.5, "é"]}', {"a": [1.5, "é"]})],
)
def test_results_come_back_as_they_were(handle: TaskHandle, peer: Peer, raw: str, value: object) -> None:
    """Falsy results are results."""
    peer.set_task(task_view("task-1", "COMPLETE", raw))
    assert handle.result() == value
    assert handle.result(wait=True) == value
    assert handle.is_complete()


def test_waiting_ends_when_the_task_does(handle: TaskHandle, peer: Peer) -> None:
    """One request waits for the end; the answer comes when the task is final."""
    results: list[object] = []
    waiting = threading.Thread(target=lambda: results.append(handle.result(wait=True, timeout=30)))
    waiting.start()
    peer.set_task(task_view("task-1", "RUNNING"))
    peer.set_task(task_view("task-1", "COMPLETE", "42"))
    waiting.join(10)
    assert results == [42]
    assert len(peer.paths("GET")) <= 1


def test_waiting_ends_in_time(handle: TaskHandle) -> None:
    """A task that is not final in time raises TimeoutError, which says why it still waits."""
    with pytest.raises(TimeoutError, match=r"task-1 is still PENDING after 0\.05 s \(waits for a container\)"):
        handle.result(wait=True, timeout=0.05)


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED", "TIMEOUT", "EXPIRED"])
@pytest.mark.parametrize("wait", [False, True])
def test_a_task_without_a_result_raises_why(handle: TaskHandle, peer: Peer, status: str, wait: bool) -> None:
    """The error names status, attempts and reason, and where to see more."""
    attempts = [AttemptView(n, "FAILED", "c", TIME, TIME, "exception", "ValueError: no", "…") for n in (1, 2)]
    peer.set_task(task_view("task-1", status, failure_reason="ValueError: no.", attempts=attempts))
    with pytest.raises(TaskFailed) as caught:
        handle.result(wait=wait)
    assert str(caught.value) == (
        f"Task task-1 ended {status} after 2 attempts: ValueError: no. More: `treadle task show task-1`."
    )
    assert isinstance(caught.value, TreadleError)
    assert caught.value.code == "task_failed"
    assert caught.value.task_status == status
    assert caught.value.view.attempts == attempts


def test_wait_returns_a_failed_task_without_raising(handle: TaskHandle, peer: Peer) -> None:
    """Whoever wants to look at the task instead can."""
    peer.set_task(task_view("task-1", "EXPIRED"))
    assert handle.wait().status == "EXPIRED"


def test_outputs_are_fresh_each_time(handle: TaskHandle, peer: Peer) -> None:
    """URLs expire, so they are asked for anew."""
    first = OutputView("a.png", "http://host/1", 3600)
    peer.set_task(task_view("task-1", "COMPLETE", outputs=[first]))
    assert handle.outputs() == [first]
    second = OutputView("a.png", "http://host/2", 3600)
    peer.set_task(task_view("task-1", "COMPLETE", outputs=[second]))
    assert handle.outputs() == [second]


def test_cancel_says_whether_it_did(handle: TaskHandle, peer: Peer) -> None:
    """True when this call cancelled the task, False when it was final already."""
    assert handle.cancel()
    peer.set_task(task_view("task-1", "COMPLETE"))
    assert not handle.cancel()


def test_an_unknown_task_is_not_found(client: Client) -> None:
    """A handle on nothing raises when it is asked."""
    with pytest.raises(NotFound, match="no-such"):
        TaskHandle("no-such", client).status()
