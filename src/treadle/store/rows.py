"""Rows to structs and back. Structs are built positionally: the hot path makes thousands of them a second."""

from __future__ import annotations

from typing import Any

import msgspec

from treadle.model.container import Container, ContainerStatus, Isolation, Role, Token, Workspace
from treadle.model.deployment import Deployment, DeploymentKind, Image, ImageSpec, QueueConfig
from treadle.model.log import Chunk, NewChunk, unpack
from treadle.model.secret import Secret
from treadle.model.task import Attempt, Change, Delivery, DeliveryStatus, Failure, NewTask, Output, Task, TaskStatus
from treadle.model.volume import Volume
from treadle.store.ids import pack_id, unpack_id

Row = tuple[Any, ...]

SMALL = 512  # bytes of a payload that stands in its task's row; a larger one would be rewritten with each change
TASK_STATUS = {status.value: status for status in TaskStatus}  # several times faster than TaskStatus(…)

_encode = msgspec.json.Encoder().encode
_decode_failure = msgspec.json.Decoder(Failure).decode
_decode_config = msgspec.json.Decoder(QueueConfig).decode
_decode_spec = msgspec.json.Decoder(ImageSpec).decode
_decode_gpus = msgspec.json.Decoder(tuple[str, ...]).decode


def failure_text(failure: Failure | None) -> str | None:
    return None if failure is None else _encode(failure).decode()


def _failure(text: str | None) -> Failure | None:
    return None if text is None else _decode_failure(text)


def to_task(row: Row) -> Task:
    """The first sixteen columns; a query may append others."""
    return Task(
        unpack_id(row[0]), row[1], row[2], TASK_STATUS[row[3]], row[4], row[5], row[6], row[7], row[8], row[9],
        row[10], row[11], row[12], row[13], bool(row[14]), _failure(row[15]),
    )  # fmt: skip


def of_task(new: NewTask, seq: int, deployment: int, container: int | None) -> Row:
    """With the numbers of its deployment and container, and its payload where that is small."""
    task = new.task
    return (
        pack_id(task.id), task.workspace_id, deployment, task.status, task.created_at, task.updated_at, task.due, seq,
        task.attempts, task.started_at, task.ended_at, task.expires_at, container, task.callback_url,
        task.callback_trusted, failure_text(task.failure), new.payload if len(new.payload) <= SMALL else None,
    )  # fmt: skip


def of_change(change: Change, seq: int, container: int | None) -> Row:
    """What a change writes to the task's row, then its guard."""
    task = change.task
    return (
        task.status, task.updated_at, task.due, task.attempts, task.started_at, task.ended_at, task.expires_at,
        container, failure_text(task.failure), change.result, seq, pack_id(task.id), change.expected,
        change.expected_attempts,
    )  # fmt: skip


def to_attempt(row: Row) -> Attempt:
    return Attempt(unpack_id(row[0]), row[1], row[2], TASK_STATUS[row[3]], row[4], row[5], _failure(row[6]))


def of_attempt(attempt: Attempt, task_seq: int, container: int | None) -> Row:
    return (
        task_seq, attempt.number, container, attempt.status, attempt.started_at, attempt.ended_at,
        failure_text(attempt.failure),
    )  # fmt: skip


def told_by_task(attempt: Attempt, task: Task) -> bool:
    """Whether the row of the task says all about this attempt, so that it needs none of its own."""
    return (
        attempt.number == task.attempts
        and attempt.status is task.status
        and attempt.container_id == task.container_id
        and attempt.started_at == task.started_at
        and attempt.ended_at == task.ended_at
        and attempt.failure == task.failure
    )


def to_output(row: Row) -> Output:
    return Output(row[0], unpack_id(row[1]), *row[2:])


def of_output(output: Output) -> Row:
    row = msgspec.structs.astuple(output)
    return (row[0], pack_id(output.task_id), *row[2:])


def to_delivery(row: Row) -> Delivery:
    return Delivery(
        row[0], unpack_id(row[1]), row[2], DeliveryStatus(row[3]), row[4], row[5], row[6], row[7], row[8], row[9]
    )  # fmt: skip


def of_delivery(delivery: Delivery) -> Row:
    """What changes in a delivery, then its id."""
    row = msgspec.structs.astuple(delivery)
    return (*row[2:], row[0])


def first_delivery(task: Task, seq: int, url: str) -> Row:
    """The webhook of a final state, due at once."""
    due = task.updated_at
    return (f"msg_{task.id}", seq, url, DeliveryStatus.PENDING, due, due, 0, None, "", None)


def to_deployment(row: Row) -> Deployment:
    kind, config, active = DeploymentKind(row[2]), _decode_config(row[5]), bool(row[9])
    return Deployment(
        row[0], row[1], kind, row[3], row[4], config, row[6], row[7], row[8], active, row[10], row[11], row[12]
    )  # fmt: skip


def of_deployment(deployment: Deployment) -> Row:
    row = msgspec.structs.astuple(deployment)
    return (*row[:5], _encode(deployment.config).decode(), *row[6:])


def to_image(row: Row) -> Image:
    return Image(row[0], row[1], _decode_spec(row[2]), row[3], row[4], row[5])


def of_image(image: Image) -> Row:
    row = msgspec.structs.astuple(image)
    return (*row[:2], _encode(image.spec).decode(), *row[3:])


def to_container(row: Row) -> Container:
    status = ContainerStatus(row[4])
    return Container(
        row[0], row[1], row[2], row[3], status, row[5], row[6], row[7], row[8], row[9], row[10], row[11], row[12],
        Isolation(row[13]), _decode_gpus(row[14]), row[15],
    )  # fmt: skip


def of_container(container: Container) -> Row:
    row = msgspec.structs.astuple(container)
    return (*row[:14], _encode(container.gpus).decode(), *row[15:])


def to_chunk(row: Row) -> Chunk:
    return Chunk(row[0], unpack_id(row[1] or ""), row[2], row[3] or "", unpack(row[4]))


def of_chunk(chunk: NewChunk, seq: int) -> Row:
    return (
        seq, chunk.container_id, chunk.task_seq, chunk.attempt, int(chunk.starting), chunk.upto.lines,
        chunk.upto.size, chunk.body,
    )  # fmt: skip


def to_workspace(row: Row) -> Workspace:
    return Workspace(*row)


def of_workspace(workspace: Workspace) -> Row:
    """Without the id: the store gives it."""
    return msgspec.structs.astuple(workspace)[1:]


def to_token(row: Row) -> Token:
    return Token(row[0], row[1], row[2], Role(row[3]), bool(row[4]), row[5], row[6])


def of_token(token: Token) -> Row:
    return msgspec.structs.astuple(token)


def to_secret(row: Row) -> Secret:
    return Secret(*row)


def of_secret(secret: Secret) -> Row:
    return msgspec.structs.astuple(secret)


def to_volume(row: Row) -> Volume:
    return Volume(*row)


def of_volume(volume: Volume) -> Row:
    return msgspec.structs.astuple(volume)
