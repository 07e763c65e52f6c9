"""A task, its attempts, and the one kind of change the store accepts for them."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class TaskStatus(StrEnum):
    """Where a task is in its life (docs/lifecycle.md)."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    RETRY = "RETRY"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    EXPIRED = "EXPIRED"


WAITING = frozenset({TaskStatus.PENDING, TaskStatus.RETRY})
FINAL = frozenset(
    {TaskStatus.COMPLETE, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.TIMEOUT, TaskStatus.EXPIRED}
)


class FailureKind(StrEnum):
    """What ended an attempt that did not succeed."""

    EXCEPTION = "exception"  # user code raised
    RESULT = "result"  # the return value is not JSON
    OOM = "oom"  # killed at the memory limit, shown by the kernel's (or the watchdog's) counter
    SIGNAL = "signal"  # killed by a signal that is not an out-of-memory kill
    EXIT = "exit"  # the process ended itself
    LOST = "lost"  # runner, agent or machine is gone
    INTERRUPTED = "interrupted"  # its container was told to stop and the grace was over: not the task's fault
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an attempt (or a task) did not succeed. `reason` is one line for people."""

    kind: FailureKind
    reason: str
    type: str = ""  # exception class name
    message: str = ""
    traceback: str = ""


class Task(msgspec.Struct, frozen=True):
    """One invocation of a deployment. Times are Unix seconds; `seq` orders tasks by acceptance."""

    id: str  # UUIDv7 (RFC 9562)
    workspace_id: int
    deployment_id: str
    status: TaskStatus
    created_at: float
    updated_at: float
    due: float  # not to be run before
    seq: int = 0  # given by the store
    attempts: int = 0  # attempts started so far; the number of the current one while RUNNING
    started_at: float | None = None  # of the latest attempt
    ended_at: float | None = None
    expires_at: float | None = None  # EXPIRED if still waiting then
    container_id: str = ""
    callback_url: str | None = None
    callback_trusted: bool = False  # chosen by the definition or by who may deploy: it may lead to loopback
    failure: Failure | None = None


class Attempt(msgspec.Struct, frozen=True):
    """One try of a task: also its lease and its fencing token. `status` uses the words of TaskStatus."""

    task_id: str
    number: int  # from 1
    container_id: str
    status: TaskStatus  # RUNNING, then COMPLETE, FAILED, TIMEOUT or CANCELLED
    started_at: float
    ended_at: float | None = None
    failure: Failure | None = None


class Change(msgspec.Struct, frozen=True):
    """A decision of `rules.lifecycle`, to be written only if the task is still `expected` with `attempts`.

    `task` is the whole new row; while it is RUNNING it speaks for its attempt too. `attempt` is the one that has
    ended with this change, `result` the raw JSON it gave. `notify` asks for the webhook of a final state, written
    in the same transaction.
    """

    task: Task
    expected: TaskStatus
    expected_attempts: int
    attempt: Attempt | None = None
    result: bytes | None = None
    notify: bool = False


class Ended(msgspec.Struct, frozen=True):
    """A task that ended long enough ago to be forgotten."""

    seq: int
    task_id: str
    has_outputs: bool


class NewTask(msgspec.Struct, frozen=True):
    """A task to insert with its payload (raw JSON `{"args": […], "kwargs": {…}}`).

    It may be RUNNING already: claimed in the commit that accepts it.
    """

    task: Task
    payload: bytes


class TaskFilter(msgspec.Struct, frozen=True):
    """Which tasks to list; empty tuples mean no restriction. Newest first."""

    workspace_id: int
    statuses: tuple[TaskStatus, ...] = ()
    task_ids: tuple[str, ...] = ()
    deployment_ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    container_ids: tuple[str, ...] = ()
    created_from: float | None = None
    created_to: float | None = None
    before_seq: int | None = None  # the cursor
    limit: int = 10


class Output(msgspec.Struct, frozen=True):
    """A file saved by an attempt. Its bytes are in the blob store under `key`."""

    id: str
    task_id: str
    attempt: int
    name: str
    size: int
    created_at: float
    key: str


class DeliveryStatus(StrEnum):
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"  # every try used up, or the receiver said 410 Gone


class Delivery(msgspec.Struct, frozen=True):
    """One webhook to send: the final state of a task to a URL."""

    id: str  # `msg_…`: the webhook-id, the same on every try
    task_id: str
    url: str
    status: DeliveryStatus
    due: float
    created_at: float
    tries: int = 0
    last_status: int | None = None  # HTTP status of the last try
    last_error: str = ""
    delivered_at: float | None = None
