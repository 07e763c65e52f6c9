"""What is sent for each final state, and what follows from each try, on the real store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from standardwebhooks import Webhook

from treadle.engine.signing import beam_signature, standard_secret
from treadle.engine.webhooks import PER_HOST, Outcome, Webhooks, host_of
from treadle.model.container import Container, ContainerStatus, Workspace
from treadle.model.deployment import Deployment, DeploymentKind, QueueConfig
from treadle.model.task import Attempt, Change, DeliveryStatus, NewTask, Task, TaskStatus
from treadle.rules.delivery import SCHEDULE
from treadle.store.sqlite import SqliteStore

NOW = 1_770_112_809.75
URL = "https://hooks.example.com/done"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "treadle.db")
    with opened.transaction():
        opened.insert_workspace(
            Workspace(id=0, external_id="w", name="default", signing_key="sk_a", url_key="sk_b", created_at=NOW)
        )
        config = QueueConfig(handler="app:f")
        opened.insert_deployment(
            Deployment("d", 1, DeploymentKind.DRAFT, "", 0, config, "source", "image", "digest", True, NOW, NOW)
        )
        opened.insert_container(Container("c", 1, "d", "agent", ContainerStatus.RUNNING, "hash", NOW, NOW))
    yield opened
    opened.close()


def finish(
    store: SqliteStore,
    task_id: str,
    status: TaskStatus = TaskStatus.COMPLETE,
    *,
    result: bytes | None = None,
    url: str = URL,
    at: float = NOW,
    trusted: bool = False,
) -> None:
    """Insert a task and end it at once, as `rules.lifecycle` would have it written."""
    workspace = store.workspace_by_name("default")
    assert workspace is not None
    task = Task(
        id=task_id, workspace_id=workspace.id, deployment_id="d", status=TaskStatus.RUNNING, created_at=at,
        updated_at=at, due=at, callback_url=url, callback_trusted=trusted, attempts=1, started_at=at, container_id="c",
    )
    with store.transaction():
        store.insert_tasks([NewTask(task=task, payload=b"{}")])
        ended = msgspec.structs.replace(task, status=status, ended_at=at)
        attempt = Attempt(task_id, 1, "c", status, at, at)
        change = Change(ended, TaskStatus.RUNNING, 1, attempt, result=result, notify=True)
        assert store.commit([change]) == [True]


@pytest.mark.parametrize("result", [b"null", b"0", b"false", b'""', b"[]", b"{}", b'{"width": 128}', b"1.50"])
def test_the_body_of_a_complete_task_is_its_result(store: SqliteStore, result: bytes) -> None:
    """Any JSON result, falsy ones too, is sent as the bytes the task returned."""
    finish(store, "t", result=result)
    (send,) = Webhooks(store).due(NOW, 10)
    assert send.body == b'{"data": ' + result + b"}"
    assert json.loads(send.body) == {"data": json.loads(result)}


@pytest.mark.parametrize("trusted", [True, False])
def test_whose_choice_a_url_was_goes_with_it(store: SqliteStore, trusted: bool) -> None:
    """To where it decides which addresses it may lead to."""
    finish(store, "t", trusted=trusted)
    (send,) = Webhooks(store).due(NOW, 10)
    assert send.trusted is trusted


@pytest.mark.parametrize(
    "status", [TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.TIMEOUT, TaskStatus.EXPIRED]
)
def test_every_other_final_state_sends_an_empty_object(store: SqliteStore, status: TaskStatus) -> None:
    """The state is in the headers; the data is {}."""
    finish(store, "t", status)
    (send,) = Webhooks(store).due(NOW, 10)
    assert send.body == b'{"data": {}}'
    assert send.headers["X-Task-Status"] == status


def test_the_headers_are_signed_with_the_workspaces_key(store: SqliteStore) -> None:
    """Beam's signature and that of Standard Webhooks both hold for the body, at the second of the try."""
    now = time.time()
    finish(store, "t", result=b'{"width": 128}', at=now)
    (send,) = Webhooks(store).due(now, 10)
    assert send.url == URL
    assert send.headers["X-Task-ID"] == "t"
    assert send.headers["X-Task-Timestamp"] == str(int(now))
    assert send.headers["X-Task-Signature"] == beam_signature("sk_a", send.body, int(now))
    assert send.headers["webhook-id"] == send.delivery.id == "msg_t"
    Webhook(standard_secret("sk_a")).verify(send.body, send.headers)


def test_a_later_try_has_the_same_body_and_id_and_a_fresh_signature(store: SqliteStore) -> None:
    """The receiver can tell a repetition by its id, and a fresh signature by its time."""
    webhooks = Webhooks(store)
    finish(store, "t", result=b"1")
    (first,) = webhooks.due(NOW, 10)
    with store.transaction():
        webhooks.record(first.delivery, Outcome(status=500), NOW, 0.0)
    (second,) = webhooks.due(NOW + 5, 10)
    assert (second.body, second.headers["webhook-id"]) == (first.body, first.headers["webhook-id"])
    assert second.headers["X-Task-Signature"] != first.headers["X-Task-Signature"]


def test_a_failed_try_comes_back_when_the_schedule_says(store: SqliteStore) -> None:
    """The try and its error are on disk, and the delivery is not due before its time."""
    webhooks = Webhooks(store)
    finish(store, "t", result=b"1")
    (send,) = webhooks.due(NOW, 10)
    with store.transaction():
        after = webhooks.record(send.delivery, Outcome(error="connection refused"), NOW, 0.0)
    assert store.deliveries("t") == [after]
    assert (after.tries, after.last_error, after.due) == (1, "connection refused", NOW + 5)
    assert webhooks.due(NOW + 4.9, 10) == []
    assert [send.delivery for send in webhooks.due(NOW + 5, 10)] == [after]


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([Outcome(status=204)], DeliveryStatus.DELIVERED),
        ([Outcome(status=410)], DeliveryStatus.FAILED),
        ([Outcome(status=302)] * 3 + [Outcome(status=200)], DeliveryStatus.DELIVERED),
        ([Outcome(error="refused")] * len(SCHEDULE), DeliveryStatus.FAILED),
    ],
)
def test_an_ended_delivery_is_never_due_again(
    store: SqliteStore, outcomes: list[Outcome], status: DeliveryStatus
) -> None:
    """Delivered, gone or given up: nothing more is sent, however late it is."""
    webhooks, now = Webhooks(store), NOW
    finish(store, "t", result=b"1")
    for outcome in outcomes:
        (send,) = webhooks.due(now, 10)
        with store.transaction():
            after = webhooks.record(send.delivery, outcome, now, 0.0)
        now = max(now, after.due)
    assert store.deliveries("t")[0].status is status
    assert webhooks.due(now + 1e9, 10) == []


def test_a_delivery_that_is_underway_is_not_given_again(store: SqliteStore) -> None:
    """What is being tried is named by the caller and left out."""
    finish(store, "a", url="https://a.example/")
    finish(store, "b", url="https://b.example/")
    assert [send.delivery.id for send in Webhooks(store).due(NOW, 10, {"msg_a"})] == ["msg_b"]


def test_one_host_holds_up_nobody_else(store: SqliteStore) -> None:
    """However many deliveries wait for one host, few are given for it, and those of others come through."""
    for number in range(300):
        finish(store, f"slow{number:03}", url="https://slow.example/hook", at=NOW)
    finish(store, "quick", url="https://QUICK.example:8443/hook", at=NOW + 1)
    webhooks = Webhooks(store)
    hosts = [host_of(send.url) for send in webhooks.due(NOW + 1, 32)]
    assert hosts == ["slow.example"] * PER_HOST + ["quick.example"]
    underway = {send.delivery.id for send in webhooks.due(NOW + 1, 3)}
    assert [send.delivery.id for send in webhooks.due(NOW + 1, 32, underway)] == ["msg_slow003", "msg_quick"]


def test_no_more_than_asked_for(store: SqliteStore) -> None:
    """The limit holds, and the oldest come first."""
    for number in range(5):
        finish(store, f"t{number}", url=f"https://h{number}.example/", at=NOW - number)
    assert [send.delivery.id for send in Webhooks(store).due(NOW, 2)] == ["msg_t4", "msg_t3"]


def test_a_url_that_names_no_host_is_its_own_host() -> None:
    """A broken URL still gets its turn, and its error."""
    assert host_of("http://[::1/x") == "http://[::1/x"
    assert host_of("http://[::1]:80/x") == "::1"
