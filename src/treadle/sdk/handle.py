"""A handle on a task: ask for its state, wait for its result, cancel it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from treadle.client import MAX_WAIT, Client
from treadle.model.api import OutputView, ResultView, TaskView
from treadle.model.errors import TreadleError, Unreachable
from treadle.model.task import FINAL, TaskStatus

V = TypeVar("V", TaskView, ResultView)
RESTART_SECONDS = 60.0  # how long a server may take to come back while somebody waits for a result
RESTART_POLL = 0.25


class TaskFailed(TreadleError):
    """A task ended without a result; `task_status` says how, the message why, `view` holds its attempts."""

    status = 409
    code = "task_failed"

    def __init__(self, view: TaskView) -> None:
        tries = len(view.attempts)
        after = f" after {tries} attempts" if tries > 1 else ""
        reason = f": {view.failure_reason.rstrip('.')}" if view.failure_reason else ""
        advice = f"More: `treadle task show {view.id}`."
        super().__init__(f"Task {view.id} ended {view.status}{after}{reason}.", advice)
        self.view = view
        self.task_status = TaskStatus(view.status)


class TaskHandle:
    """A task that was accepted. Every method asks the server; nothing here goes stale."""

    __slots__ = ("_client", "id")

    def __init__(self, id: str, client: Client) -> None:  # noqa: A002 - Beam's name
        self.id = id
        self._client = client

    def __repr__(self) -> str:
        return f"TaskHandle({self.id!r})"

    def view(self) -> TaskView:
        """Everything the server tells about the task."""
        return self._client.task(self.id)

    def status(self) -> TaskStatus:
        """The task's status now."""
        return TaskStatus(self.view().status)

    def is_complete(self) -> bool:
        """Whether the task has reached a final state, good or bad."""
        return self.status() in FINAL

    def outputs(self) -> list[OutputView]:
        """The saved outputs with fresh URLs."""
        return self.view().outputs

    def cancel(self) -> bool:
        """Cancel the task; False when it was final already."""
        return self.id in self._client.cancel([self.id])

    def result(self, wait: bool = False, timeout: float | None = None) -> Any:
        """What the function returned. Without `wait`, None also means that the task is not final yet.

        Raises:
            TaskFailed: the task ended in another state than COMPLETE.
            TimeoutError: it was not final after `timeout` seconds of waiting.
        """
        answer = self._when_final(self._client.result, timeout) if wait else self._client.result(self.id)
        status = TaskStatus(answer.status)
        if status not in FINAL:
            return None
        if status is not TaskStatus.COMPLETE:
            raise TaskFailed(self.view())
        return msgspec.json.decode(answer.result)

    def wait(self, timeout: float | None = None) -> TaskView:
        """The task once it is final, however it ended. A server that restarts meanwhile is waited for.

        Raises:
            TimeoutError: it was not final after `timeout` seconds.
            Unreachable: no server has answered for RESTART_SECONDS.
        """
        return self._when_final(self._client.task, timeout)

    def _when_final(self, ask: Callable[[str, float], V], timeout: float | None) -> V:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = MAX_WAIT if deadline is None else max(0.0, deadline - time.monotonic())
            answer = self._patiently(ask, left)
            if TaskStatus(answer.status) in FINAL:
                return answer
            if deadline is not None and time.monotonic() >= deadline:
                why = self.view().why
                told = f" ({why})" if why else ""
                raise TimeoutError(f"Task {self.id} is still {answer.status} after {timeout:g} s{told}.")

    def _patiently(self, ask: Callable[[str, float], V], wait: float) -> V:
        patience = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                return ask(self.id, wait)
            except Unreachable:
                if time.monotonic() >= patience:
                    raise
                time.sleep(RESTART_POLL)
                wait = max(0.0, min(wait, patience - time.monotonic()))
