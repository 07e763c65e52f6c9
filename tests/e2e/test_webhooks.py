"""Webhooks of the whole product: sent for every final state, verifiable by strangers, and not lost by anything."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import b64encode
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from notes import open_gate
from place import Got, Place, Receiver, free_port, until
from standardwebhooks import Webhook, WebhookVerificationError

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def _notes(place: Place) -> None:
    place.share_notes()


@pytest.fixture(scope="module")
def key(place: Place) -> str:
    """The signing key as `treadle webhook key` prints it."""
    return printed_key(place)


def printed_key(place: Place) -> str:
    shown = place.cli("webhook", "key")
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.strip()


def verify(got: Got, key: str, task: dict[str, Any], data: object) -> None:
    """Check one webhook as its receiver would: Beam's way by hand, then with the Standard Webhooks library."""
    assert got.body.startswith(b'{"data": ')
    assert json.loads(got.body) == {"data": data}
    assert got.headers["content-type"] == "application/json"
    assert (got.headers["x-task-id"], got.headers["x-task-status"]) == (task["id"], task["status"])
    timestamp = got.headers["x-task-timestamp"]
    assert abs(got.at - int(timestamp)) < 5
    message = b64encode(got.body) + b":" + timestamp.encode()
    signature = hmac.new(key.encode(), message, hashlib.sha256).hexdigest()
    assert got.headers["x-task-signature"] == signature
    standard = Webhook("whsec_" + b64encode(key.encode()).decode())
    assert standard.verify(got.body, got.headers) == {"data": data}
    assert got.headers["webhook-id"].startswith("msg_")
    with pytest.raises(WebhookVerificationError):
        standard.verify(got.body + b" ", got.headers)


def no_more(receiver: Receiver) -> None:
    with pytest.raises(Empty):
        receiver.next(0.3)


def queue(place: Place, receiver: Receiver, name: str, body: str, options: str = "") -> str:
    """Deploy a queue whose handler has this body and whose webhooks go to the receiver."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    place.deploy(
        "import os\nfrom notes import gate\nfrom treadle import TaskPolicy, task_queue\n\n"
        f"@task_queue(callback_url={receiver.url!r}, {options})\ndef handler(folder=''):\n{lines}\n",
        name=name,
    )
    return name


def test_the_webhook_of_a_complete_task_carries_its_result(place: Place, receiver: Receiver, key: str) -> None:
    """`{"data": result}` arrives once, signed in both ways; a falsy value is a result too."""
    name = queue(place, receiver, "complete", "return {'width': 128, 'none': None}")
    task = place.ended(place.submit(name))
    verify(receiver.next(), key, task, {"width": 128, "none": None})
    zero = queue(place, receiver, "zero", "return 0")
    task = place.ended(place.submit(zero))
    assert task["status"] == "COMPLETE"
    verify(receiver.next(), key, task, 0)
    no_more(receiver)


def test_the_webhook_of_a_failed_task_comes_after_its_last_attempt(place: Place, receiver: Receiver, key: str) -> None:
    """Retries send nothing; FAILED sends one webhook with empty data."""
    name = queue(
        place, receiver, "failed", "raise ValueError('no')", "retries=2, task_policy=TaskPolicy(retry_delay=0)"
    )
    task = place.ended(place.submit(name))
    assert (task["status"], len(task["attempts"])) == ("FAILED", 3)
    verify(receiver.next(), key, task, {})
    no_more(receiver)


def test_the_webhook_of_a_crash_is_sent_by_the_server(place: Place, receiver: Receiver, key: str) -> None:
    """The process that ran the task is dead, and its webhook arrives all the same."""
    name = queue(place, receiver, "crash", "os.kill(os.getpid(), 9)", "retries=0")
    task = place.ended(place.submit(name))
    assert (task["status"], task["attempts"][0]["failure_kind"]) == ("FAILED", "signal")
    verify(receiver.next(), key, task, {})


def test_the_webhook_of_a_timeout(place: Place, receiver: Receiver, key: str) -> None:
    """TIMEOUT sends one webhook with empty data."""
    name = queue(place, receiver, "timeout", "gate(folder)", "timeout=1")
    task = place.ended(place.submit(name, folder="/nowhere"))
    assert task["status"] == "TIMEOUT"
    verify(receiver.next(), key, task, {})
    no_more(receiver)


def test_the_webhooks_of_cancelled_tasks_pending_and_running(
    place: Place, receiver: Receiver, key: str, tmp_path: Path
) -> None:
    """A running and a waiting task are cancelled in one request: two webhooks, each once."""
    name = queue(place, receiver, "cancelled", "gate(folder)")
    running, pending = place.submit(name, folder=str(tmp_path)), place.submit(name, folder=str(tmp_path))
    place.running(running)
    assert place.task(pending)["status"] == "PENDING"
    assert place.cancel(running, pending) == [running, pending]
    tasks = {task_id: place.ended(task_id) for task_id in (running, pending)}
    got = {(one := receiver.next()).headers["x-task-id"]: one for _ in range(2)}
    for task_id, task in tasks.items():
        assert task["status"] == "CANCELLED"
        verify(got[task_id], key, task, {})
    assert len({one.headers["webhook-id"] for one in got.values()}) == 2
    no_more(receiver)


def test_the_webhook_of_an_expired_task(place: Place, receiver: Receiver, key: str, tmp_path: Path) -> None:
    """A task that has waited longer than its ttl tells so, though nothing ever ran."""
    name = queue(place, receiver, "expired", "gate(folder)", "task_policy=TaskPolicy(ttl=3)")
    assert place.request("POST", f"/taskqueue/{name}/warmup").status_code == 200

    def warm() -> bool:
        shown = place.request("GET", "/v2/containers").json()
        return any(one["deployment"] == f"{name} v1" and one["status"] == "RUNNING" for one in shown)

    until(warm, what="a warm container")
    ahead = place.submit(name, folder=str(tmp_path))
    place.running(ahead)
    task = place.ended(place.submit(name, folder=str(tmp_path)))
    assert (task["status"], task["attempts"]) == ("EXPIRED", [])
    verify(receiver.next(), key, task, {})
    open_gate(tmp_path)
    verify(receiver.next(), key, place.ended(ahead), None)


def test_a_request_may_name_its_own_callback_url(place: Place, receiver: Receiver, key: str) -> None:
    """`callback_url` in the body of the enqueue request is used instead of the decorator's."""
    other = Receiver()
    try:
        place.deploy(
            f"""
            from treadle import task_queue

            @task_queue(callback_url={receiver.url!r})
            def handler(x, context, callback_url=None):
                return [x, context.callback_url]
            """,
            name="own-url",
        )
        task = place.ended(place.submit("own-url", x=1, callback_url=other.url))
        verify(other.next(), key, task, [1, other.url])
        no_more(receiver)
    finally:
        other.close()


def test_a_receiver_that_fails_is_tried_again_with_the_same_message(place: Place, key: str) -> None:
    """500 is answered first: five seconds later the same id and body come again, freshly signed; 200 ends it."""
    receiver = Receiver(statuses=[500])
    try:
        name = queue(place, receiver, "again", "return 'kept'")
        task = place.ended(place.submit(name))
        first, second = receiver.next(), receiver.next()
        for got in (first, second):
            verify(got, key, task, "kept")
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert 5 <= second.at - first.at < 8
        no_more(receiver)
    finally:
        receiver.close()


def test_a_webhook_survives_the_death_of_the_server(own_place: Place) -> None:
    """The receiver is down and the server is killed; both come back on their ports, and the webhook arrives, once."""
    port = free_port()
    place = own_place.up()
    place.deploy(
        f"""
        from treadle import task_queue

        @task_queue(callback_url="http://127.0.0.1:{port}/hook")
        def handler():
            return "kept"
        """
    )
    key = printed_key(place)
    task = place.ended(place.submit())
    place.kill9()
    receiver = Receiver(port=port)
    try:
        place.up()
        assert place.task(task["id"])["status"] == "COMPLETE"
        verify(receiver.next(), key, task, "kept")
        no_more(receiver)
        assert place.stop() == 0
    finally:
        receiver.close()


def test_a_submit_token_does_not_reach_loopback(place: Place, receiver: Receiver, key: str) -> None:
    """Where the server listens on loopback, as behind a proxy, it calls what else does for those who may deploy alone."""
    place.deploy("from treadle import task_queue\n\n@task_queue()\ndef handler(callback_url):\n    return 1\n", name="named")
    token = place.request("POST", "/v2/tokens", json={"role": "submit"}).json()["token"]
    answer = place.request("POST", "/taskqueue/named", token=token, json={"callback_url": receiver.url})
    refused = place.ended(answer.json()["task_id"])
    until(lambda: f"webhook not taken  task={refused['id']}" in place.log.read_text())
    assert "loopback" in place.log.read_text()
    task = place.ended(place.submit("named", callback_url=receiver.url))
    verify(receiver.next(), key, task, 1)
    no_more(receiver)


def test_the_key_that_is_printed_is_the_one_for_receivers(place: Place, key: str) -> None:
    """`treadle webhook key` prints `sk_…` alone on a line, and as JSON with --json."""
    assert key.startswith("sk_")
    assert "\n" not in key
    assert json.loads(place.cli("webhook", "key", "--json").stdout) == {"signing_key": key}


def test_a_webhook_leaves_at_once(place: Place, receiver: Receiver) -> None:
    """It is sent when the final state is written, not when somebody looks next."""
    name = queue(place, receiver, "prompt", "return 1")
    place.ended(place.submit(name))
    receiver.next()
    took = []
    for _ in range(5):
        place.ended(place.submit(name))
        ended = time.time()
        took.append(receiver.next().at - ended)
    assert min(took) < 0.2
