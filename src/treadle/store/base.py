"""The memory of Treadle: what a store must do. Every implementation passes `tests/store`.

Two faces: `Store` is the single writer (used by the writer's thread only); `Reader` answers questions and may be
opened as often as wanted. All methods are synchronous. Structs come from `treadle.model`; times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from treadle.model.container import Container, Token, Workspace
from treadle.model.deployment import Deployment, Image, ImageUse
from treadle.model.log import Chunk, Extent, NewChunk
from treadle.model.secret import Secret
from treadle.model.task import Attempt, Change, Delivery, Ended, NewTask, Output, Task, TaskFilter
from treadle.model.volume import Volume


class Reader(Protocol):
    """Questions. A reader sees every transaction that was committed before the question."""

    def task(self, task_id: str) -> Task | None: ...
    def payload(self, task_id: str) -> bytes | None: ...
    def result(self, task_id: str) -> bytes | None:
        """Raw JSON of a COMPLETE task, else None."""
        ...

    def attempts(self, task_id: str) -> list[Attempt]:
        """All attempts, oldest first; the last one is RUNNING where the task is."""
        ...

    def tasks(self, which: TaskFilter) -> list[Task]:
        """Newest first (by seq), at most `which.limit`."""
        ...

    def running_in(self, container_id: str) -> list[Task]:
        """RUNNING tasks whose container_id this is."""
        ...

    def outputs(self, task_id: str) -> list[Output]:
        """Outputs of a task, oldest first, of all its attempts."""
        ...

    def output(self, output_id: str) -> Output | None: ...
    def deliveries(self, task_id: str) -> list[Delivery]: ...
    def deployment(self, deployment_id: str) -> Deployment | None:
        """Also one that was deleted: tasks name it."""
        ...

    def deployments(self, workspace_id: int, name: str = "") -> list[Deployment]:
        """Named ones that were not deleted, newest first; with `name` only the versions of that name."""
        ...

    def served(self) -> list[Deployment]:
        """Those that somebody serves now, of all workspaces."""
        ...

    def deployment_version(self, workspace_id: int, name: str, version: int | None) -> Deployment | None:
        """One version of a name that was not deleted; None asks for the highest."""
        ...

    def last_version(self, workspace_id: int, name: str) -> int:
        """The highest version that a name ever had, deleted ones included; 0 for a new name."""
        ...

    def draft(self, workspace_id: int, digest: str) -> Deployment | None: ...
    def image(self, spec_digest: str) -> Image | None: ...
    def image_by_id(self, image_id: str) -> Image | None: ...
    def image_uses(self) -> list[ImageUse]:
        """Which image each named, active deployment of any workspace has, by name and version."""
        ...

    def has_source(self, workspace_id: int, source_id: str) -> bool: ...
    def token(self, token_hash: str) -> Token | None: ...
    def tokens(self, workspace_id: int) -> list[Token]:
        """Oldest first."""
        ...

    def container(self, container_id: str) -> Container | None: ...
    def container_by_token(self, token_hash: str) -> Container | None: ...
    def containers(self, workspace_id: int, *, ended: int = 0) -> list[Container]:
        """Those not STOPPED, newest first; with `ended`, the newest so many of any status."""
        ...

    # logs: chunks from the one with number `seq` on, in the order of arrival, at most `limit`
    def task_log(self, task_id: str, seq: int, limit: int) -> list[Chunk]:
        """What its attempts have printed, and the containers that were started for it, while they started."""
        ...

    def container_log(self, container_id: str, seq: int, limit: int) -> list[Chunk]:
        """Everything printed in a container, by tasks or not."""
        ...

    def deployment_log(self, deployment_id: str, seq: int, limit: int) -> list[Chunk]:
        """Everything printed in the containers of a deployment."""
        ...

    def workspace(self, workspace_id: int) -> Workspace | None: ...
    def workspace_by_name(self, name: str) -> Workspace | None: ...
    def secret(self, workspace_id: int, name: str) -> Secret | None: ...
    def secrets(self, workspace_id: int) -> list[Secret]:
        """By name."""
        ...

    def volume(self, workspace_id: int, name: str) -> Volume | None: ...
    def volumes(self, workspace_id: int) -> list[Volume]:
        """By name."""
        ...

    def close(self) -> None: ...


class Store(Reader, Protocol):
    """Questions and changes. Changes are durable (fsync) when `transaction()` has ended without an error."""

    def transaction(self) -> AbstractContextManager[None]:
        """BEGIN IMMEDIATE … COMMIT with fsync; ROLLBACK when the body or the commit raises."""
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """Inside a transaction: undo the body alone when it raises."""
        ...

    def reader(self) -> Reader:
        """A reader with a connection of its own."""
        ...

    # tasks
    def insert_tasks(self, tasks: Sequence[NewTask]) -> int:
        """Insert tasks with their payloads, in order. Answers the `seq` of the first; the others' follow it.

        Raises:
            Conflict: there is a task with such an id.
            NotFound: the store has no such deployment or container.
        """
        ...

    def waiting(self, deployment_id: str, now: float, limit: int, *, most: int) -> list[tuple[Task, bytes]]:
        """PENDING and RETRY tasks with due <= now and not expired, by (due, seq), with their payloads.

        One at least, if there is any, and no more than have `most` bytes of payload together.
        """
        ...

    def waiting_at(self, deployment_id: str, now: float, place: int) -> str:
        """The id of the task at this place (from 0) of what `waiting` gives; "" where there are fewer."""
        ...

    def next_due(self, deployment_id: str) -> float | None:
        """The smallest `due` of a waiting task."""
        ...

    def commit(self, changes: Sequence[Change]) -> list[bool]:
        """Write decisions; False where the task was not `expected` with `expected_attempts` any more.

        With the task row go the attempt that has ended, its result, and for `notify` a PENDING
        delivery when the task has a callback_url (id "msg_" + task id, due now, i.e. task.updated_at).
        """
        ...

    def expired(self, now: float, limit: int) -> list[Task]:
        """Waiting tasks with expires_at <= now."""
        ...

    def ended(self, before: float, after_seq: int, limit: int) -> tuple[list[Ended], int | None]:
        """Of the next `limit` tasks after a seq, those that ended before a time and have no PENDING delivery.

        And the last seq looked at, None when no later task can have ended before that time.
        """
        ...

    def newest_seq(self) -> int:
        """That of the task inserted last, 0 before the first; one that was rolled back may count."""
        ...

    def forget_tasks(self, seqs: Sequence[int]) -> None:
        """Delete tasks with their payloads, results, attempts, outputs, deliveries and logs."""
        ...

    def unfinished(self) -> dict[str, tuple[int, int]]:
        """(waiting, running) per deployment id, from the partial indexes."""
        ...

    # deployments, images, sources
    def insert_deployment(self, deployment: Deployment) -> None: ...
    def switch_deployment(self, deployment: Deployment) -> None:
        """Write `active`, `updated_at` and `deleted_at`."""
        ...

    def rewrite_served(self, deployment: Deployment) -> None:
        """Write config, source, image and `updated_at` of one that is served. Those of others never change."""
        ...

    def put_image(self, image: Image) -> None:
        """Insert or replace, by spec_digest."""
        ...

    def add_source(self, workspace_id: int, source_id: str, size: int, now: float) -> None:
        """Idempotent."""
        ...

    # containers
    def insert_container(self, container: Container) -> None: ...
    def update_container(self, container: Container) -> None:
        """Replace the row with this id."""
        ...

    def forget_containers(self, before: float, limit: int) -> None:
        """Delete at most `limit` STOPPED ones that ended before a time, with their own logs."""
        ...

    def live_containers(self) -> list[Container]:
        """Those not STOPPED, oldest first."""
        ...

    # logs
    def insert_logs(self, chunks: Sequence[NewChunk]) -> None:
        """Store chunks, in order; their numbers are given here."""
        ...

    def log_end(self, task_seq: int, attempt: int) -> Extent:
        """How much of this attempt is stored; asked for the latest one only."""
        ...

    def own_log_end(self, container_id: str) -> Extent:
        """How much of a container's own words was stored, what is trimmed included."""
        ...

    def trim_own_log(self, container_id: str, before: Extent) -> None:
        """Delete a container's own chunks whose lines or bytes all lie before this."""
        ...

    def log_bytes(self) -> int:
        """What the lines of all chunks take, as they are stored."""
        ...

    def forget_oldest_logs(self, size: int, limit: int) -> None:
        """Delete the chunks that came first: as few as take `size` bytes or more, and at most `limit`."""
        ...

    # outputs, deliveries
    def insert_output(self, output: Output) -> bool:
        """False (and nothing written) unless the task is RUNNING with `attempts == output.attempt`."""
        ...

    def due_deliveries(self, now: float, limit: int) -> list[Delivery]:
        """PENDING with due <= now, oldest due first."""
        ...

    def update_delivery(self, delivery: Delivery) -> None: ...

    # workspaces, tokens
    def insert_workspace(self, workspace: Workspace) -> Workspace:
        """Returns it with the id given by the store."""
        ...

    def insert_token(self, token: Token) -> None: ...
    def switch_token(self, token_id: str, *, active: bool) -> None: ...
    def delete_token(self, token_id: str) -> None: ...

    # secrets
    def put_secret(self, secret: Secret) -> None:
        """Insert or replace, by workspace and name."""
        ...

    def delete_secret(self, workspace_id: int, name: str) -> None: ...

    # volumes
    def insert_volume(self, volume: Volume) -> None: ...
    def delete_volume(self, workspace_id: int, name: str) -> None: ...
