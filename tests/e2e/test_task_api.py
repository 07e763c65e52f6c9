"""The task's record, lists of tasks with filters and pages, and cancelling."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from place import Place, is_alive, process_of, until

pytestmark = pytest.mark.e2e

UNKNOWN = "00000000-0000-0000-0000-000000000000"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
APP = """
    import os, pathlib, time
    from treadle import Output, QueueDepthAutoscaler, TaskPolicy, task_queue

    @task_queue(task_policy=TaskPolicy(retry_delay=0.05), retries=2, keep_warm_seconds=60, env={"PASSWORD": "env-7431"})
    def handler(do="save", go="", log=""):
        if log:
            with open(log, "a") as file:
                file.write(os.environ["TASK_ID"] + "\\n")
        if do == "save":
            pathlib.Path("saved.txt").write_text("text")
            Output(path="saved.txt").save()
        if do == "fail":
            raise KeyError("no such thing")
        if do == "block":
            pathlib.Path(go + ".pid").write_text(str(os.getpid()))
            while not pathlib.Path(go).exists():
                time.sleep(0.01)
        return {"did": do}
"""


@pytest.fixture(scope="module")
def app(place: Place) -> Place:
    """A place with the queue `app`."""
    place.deploy(APP, name="app", file="app.py")
    return place


@pytest.fixture(scope="module")
def own(app: Place) -> Callable[[str], None]:
    """Deploys the same function under another name, for tests that need a queue of their own."""
    return lambda name: app.deploy(APP, name=name, file="app.py") and None


def is_time(value: object) -> bool:
    return isinstance(value, str) and bool(TIME.fullmatch(value))


def is_id(value: object) -> bool:
    return isinstance(value, str) and bool(UUID.fullmatch(value))


# the record

FIELDS: dict[str, Callable[[Any], bool]] = {
    "id": is_id,
    "external_id": is_id,
    "status": lambda v: v == "COMPLETE",
    "failure_reason": lambda v: v == "",
    "container_id": lambda v: v.startswith("taskqueue-"),
    "created_at": is_time,
    "started_at": is_time,
    "ended_at": is_time,
    "updated_at": is_time,
    "deployment": lambda v: is_id(v["id"]) and v["name"] == "app" and v["version"] == 1,
    "outputs": lambda v: [(o["name"], o["expires_in"]) for o in v] == [("saved.txt", 3600)],
    "stats": lambda v: v["active_containers"] == 1 and type(v["queue_depth"]) is int,
    "result": lambda v: v == {"did": "save"},
    "attempts": lambda v: [a["status"] for a in v] == ["COMPLETE"],
    "why": lambda v: v == "",
    "workspace": lambda v: type(v["id"]) is int and is_id(v["external_id"]) and v["name"] == "default",
    "external_workspace": lambda v: v is None,
    "stub": lambda v: is_id(v["id"]) and v["type"] == "taskqueue/deployment" and v["public"] is False,
    "app": lambda v: is_id(v["id"]) and v["name"] == "app" and v["deleted_at"] is None,
}


def test_the_record_of_a_task_has_every_field_with_its_type(app: Place) -> None:
    """The fields of Beam's task, with `attempts` and `why` besides and nothing else."""
    task = app.ended(app.submit("app"))
    assert task.keys() == FIELDS.keys()
    wrong = {name: task[name] for name, fits in FIELDS.items() if not fits(task[name])}
    assert wrong == {}
    assert task["id"] == task["external_id"]
    assert task["created_at"] <= task["started_at"] <= task["ended_at"] <= task["updated_at"]
    for part in ("workspace", "stub", "app"):
        assert is_time(task[part]["created_at"]) and is_time(task[part]["updated_at"])
    assert task["stub"]["name"] == "taskqueue/deployment/app:handler" and task["stub"]["config_version"] == 0


def test_the_definition_in_the_record_is_a_json_string_under_beams_keys(app: Place) -> None:
    """`stub.config` is text, as Beam's clients expect."""
    config = json.loads(app.task(app.submit("app"))["stub"]["config"])
    assert config["handler"] == "app:handler" and config["runtime"]["memory"] == 128
    assert config["task_policy"] == {"max_retries": 2, "timeout": 3600, "ttl": 0}
    assert {"autoscaler", "workers", "keep_warm_seconds", "max_pending_tasks", "authorized"} <= config.keys()


def test_a_pending_task_has_empty_fields_and_a_reason(app: Place, own: Callable[[str], None], tmp_path: Path) -> None:
    """What has not happened is null or empty, `why` says what the task waits for."""
    own("pending")
    blocking = app.submit("pending", do="block", go=str(tmp_path / "go"))
    app.running(blocking)
    task = app.task(app.submit("pending"))
    assert (task["status"], task["container_id"], task["attempts"], task["outputs"]) == ("PENDING", "", [], [])
    assert (task["started_at"], task["ended_at"], task["result"]) == (None, None, None)
    assert task["why"] != "" and task["stats"] == {"active_containers": 1, "queue_depth": 2}
    (tmp_path / "go").touch()
    assert app.ended(task["id"])["why"] == ""


def test_no_key_is_in_any_answer(app: Place) -> None:
    """Neither the signing key nor a token nor the value of a variable is in a record or a list."""
    task_id = app.submit("app")
    app.ended(task_id)
    key = app.cli("webhook", "key").stdout.strip()
    for path in (f"/v2/task/{task_id}/", "/v2/task/", f"/api/v1/task/default/{task_id}", "/v2/workspace"):
        text = app.request("GET", path).text
        assert task_id in text or "workspace" in path
        for secret in ("signing_key", key, key.removeprefix("sk_"), app.token, "env-7431"):
            assert secret not in text, (path, secret)


def test_a_failed_task_tells_every_attempt(app: Place) -> None:
    """One entry an attempt with times, reason and traceback; the last reason is the task's."""
    task = app.ended(app.submit("app", do="fail"))
    assert (task["status"], task["failure_reason"]) == ("FAILED", "KeyError: 'no such thing'")
    assert task["result"] is None and is_time(task["ended_at"])
    assert [attempt["number"] for attempt in task["attempts"]] == [1, 2, 3]
    for attempt in task["attempts"]:
        assert attempt["status"] == "FAILED" and attempt["failure_kind"] == "exception"
        assert attempt["failure_reason"] == "KeyError: 'no such thing'"
        assert 'raise KeyError("no such thing")' in attempt["traceback"]
        assert attempt["container_id"] == task["container_id"]
        assert is_time(attempt["started_at"]) and attempt["started_at"] <= attempt["ended_at"]


def test_a_task_that_is_waited_for_is_answered_as_soon_as_it_ends(app: Place, tmp_path: Path) -> None:
    """`?wait=` holds the answer back until the task is final, or until the time is up."""
    go = tmp_path / "go"
    task_id = app.submit("app", do="block", go=str(go))
    app.running(task_id)
    assert app.task(task_id, wait=0.05)["status"] == "RUNNING"
    go.touch()
    assert app.task(task_id, wait=30)["status"] == "COMPLETE"


@pytest.mark.parametrize(
    "path", ["/v2/task/{id}/", "/v2/task/{id}", "/api/v1/task/{ws}/{id}", "/api/v1/task/{ws}/{id}/"]
)
def test_a_task_is_read_under_both_addresses(app: Place, path: str) -> None:
    """Ours without a workspace, Beam's with its id or its name."""
    task = app.ended(app.submit("app", do=""))
    for workspace in (task["workspace"]["external_id"], "default"):
        answer = app.request("GET", path.format(id=task["id"], ws=workspace))
        assert answer.status_code == 200 and answer.json()["result"] == {"did": ""}


@pytest.mark.parametrize("task_id", [UNKNOWN, "abc", "%00", "x" * 300])
def test_an_unknown_task_is_not_found(app: Place, task_id: str) -> None:
    """Also an id of another form is a 404 in the one error shape."""
    for path in (f"/v2/task/{task_id}/", f"/api/v1/task/default/{task_id}"):
        answer = app.request("GET", path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.json().keys() == {"error", "code", "advice", "message"}


def test_another_workspace_is_closed(app: Place) -> None:
    """A token opens its own workspace only, and none opens nothing."""
    task_id = app.submit("app")
    assert app.request("GET", f"/api/v1/task/{UNKNOWN}/{task_id}").status_code == 404
    assert app.request("GET", f"/api/v1/task/{UNKNOWN}").status_code == 404
    for path in (f"/v2/task/{task_id}/", "/v2/task/", f"/api/v1/task/default/{task_id}"):
        assert app.request("GET", path, token="").status_code == 401
        assert app.request("GET", path, token="wrong").status_code == 401
    assert app.request("DELETE", "/v2/task/cancel/", token="", json={"task_ids": [task_id]}).status_code == 401


# lists


def ids(page: dict[str, Any]) -> list[str]:
    return [task["id"] for task in page["data"]]


def listed(place: Place, **query: Any) -> dict[str, Any]:
    answer = place.request("GET", "/v2/task/", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_pages_lead_through_all_tasks_newest_first(app: Place, own: Callable[[str], None]) -> None:
    """Each page's `next` leads to the following one without gap or repetition; the last one has none."""
    own("pages")
    made = [app.submit("pages", do="") for _ in range(7)]
    seen, cursor, sizes = [], "", []
    while True:
        page = listed(app, stub_names="pages", limit=3, cursor=cursor)
        seen += ids(page)
        sizes.append(len(page["data"]))
        cursor = page["next"]
        if not cursor:
            break
        app.submit("pages", do="")  # what comes in meanwhile does not shift the pages
    assert (seen, sizes) == (made[::-1], [3, 3, 1])
    exact = listed(app, task_ids=",".join(made), limit=7)
    assert (ids(exact), exact["next"]) == (made[::-1], "")


def test_lists_are_filtered(app: Place, own: Callable[[str], None]) -> None:
    """By status, ids, deployment, name, container and time, one or several at once."""
    own("filters")
    good, bad = app.submit("filters", do=""), app.submit("filters", do="fail")
    task = app.ended(good)
    app.ended(bad)
    stub = task["stub"]["id"]
    assert ids(listed(app, stub_names="filters")) == [bad, good]
    assert ids(listed(app, stub_ids=stub)) == [bad, good]
    assert ids(listed(app, container_ids=task["container_id"])) == [bad, good]
    assert ids(listed(app, stub_names="filters", status="COMPLETE")) == [good]
    assert ids(listed(app, stub_names="filters", status="complete,failed")) == [bad, good]
    assert ids(listed(app, stub_names="filters", status="PENDING")) == []
    assert ids(listed(app, task_ids=f"{good},{UNKNOWN},x")) == [good]
    assert ids(listed(app, task_ids="x")) == []
    assert ids(listed(app, stub_names="filters,no-such-name")) == [bad, good]
    assert ids(listed(app, stub_names="no-such-name")) == []
    assert ids(listed(app, stub_names="filters", created_at_start=task["created_at"])) == [bad, good]
    assert ids(listed(app, stub_names="filters", created_at_end=task["created_at"])) == [good]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert ids(listed(app, stub_names="filters", created_at_start=later)) == []
    assert ids(listed(app, stub_names="filters", created_at_end=later)) == [bad, good]


def test_a_list_has_ten_tasks_unless_told_otherwise(app: Place) -> None:
    """Both addresses list whole records."""
    for _ in range(11):
        app.submit("app", do="")
    page = listed(app)
    assert len(page["data"]) == 10 and page["next"]
    assert all(task.keys() == FIELDS.keys() for task in page["data"])
    assert ids(app.request("GET", "/api/v1/task/default").json())[:10] == ids(page)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"status": "DONE"}, "PENDING"),
        ({"limit": "0"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"cursor": "rubbish"}, "cursor"),
        ({"created_at_start": "yesterday"}, "created_at_start"),
    ],
)
def test_a_wrong_filter_is_refused_with_what_is_allowed(app: Place, query: dict[str, str], told: str) -> None:
    """Never ignored: a filter that vanishes would show everything."""
    answer = app.request("GET", "/v2/task/", params=query)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (400, "invalid")
    assert told in body["error"] + body["advice"]


# cancelling


def by_body(place: Place, task_ids: list[str]) -> list[str]:
    return place.cancel(*task_ids)


def by_query(place: Place, task_ids: list[str]) -> list[str]:
    answer = place.request("DELETE", "/v2/task/cancel/", params={"task_ids": ",".join(task_ids)})
    return list(answer.json()["cancelled"])


def as_beam(place: Place, task_ids: list[str]) -> list[str]:
    answer = place.request("DELETE", "/api/v1/task/default", params={"task_ids": ",".join(task_ids)})
    return list(answer.json()["cancelled"])


@pytest.mark.parametrize("cancel", [by_body, by_query, as_beam])
def test_a_pending_task_never_runs_after_it_was_cancelled(
    app: Place, own: Callable[[str], None], tmp_path: Path, cancel: Callable[[Place, list[str]], list[str]]
) -> None:
    """It is final at once, and when its turn would come the next one runs."""
    name = f"cancel-{cancel.__name__.replace('_', '-')}"
    own(name)
    log, go = tmp_path / "log", tmp_path / "go"
    first = app.submit(name, do="block", go=str(go), log=str(log))
    app.running(first)
    waiting = [app.submit(name, do="", log=str(log)) for _ in range(3)]
    assert sorted(cancel(app, waiting[:2])) == sorted(waiting[:2])
    task = app.task(waiting[0])
    assert (task["status"], task["failure_reason"], task["attempts"]) == ("CANCELLED", "cancelled on request", [])
    assert is_time(task["ended_at"]) and task["started_at"] is None
    go.touch()
    assert app.ended(waiting[2])["status"] == "COMPLETE"
    assert log.read_text().split() == [first, waiting[2]]


def test_a_running_task_is_killed_at_once(app: Place, tmp_path: Path) -> None:
    """Its process is gone, the task says why, and the queue goes on with the next one."""
    go = tmp_path / "go"
    task_id = app.submit("app", do="block", go=str(go))
    pid = int(until(lambda: (p := Path(f"{go}.pid")).exists() and p.read_text(), what="the handler"))
    process = process_of(app.task(task_id)["container_id"], pid)
    assert process is not None
    start = time.monotonic()
    assert app.cancel(task_id) == [task_id]
    until(lambda: not is_alive(process.pid), what="the end of the process")
    took = time.monotonic() - start
    print(f"killed {took * 1000:.0f} ms after the request (promised: within a second on a free machine)")
    task = app.task(task_id)
    assert (task["status"], task["failure_reason"]) == ("CANCELLED", "cancelled on request")
    assert [attempt["status"] for attempt in task["attempts"]] == ["CANCELLED"]
    assert is_time(task["ended_at"])
    assert app.ended(app.submit("app", do=""))["status"] == "COMPLETE"


def test_a_finished_task_stays_as_it_is(app: Place) -> None:
    """Cancelling it does nothing, and says that it did nothing."""
    good, bad = app.submit("app"), app.submit("app", do="fail")
    before = [app.ended(good), app.ended(bad)]
    assert app.cancel(good, bad) == []
    for task in before:
        after = app.task(task["id"])
        for field in ("status", "result", "ended_at", "updated_at", "failure_reason", "attempts"):
            assert after[field] == task[field]


def test_unknown_tasks_are_skipped_when_cancelling(app: Place, tmp_path: Path) -> None:
    """The known one among them is cancelled; a second request finds nothing to do."""
    task_id = app.submit("app", do="block", go=str(tmp_path / "go"))
    assert app.cancel(UNKNOWN, task_id, "x", task_id) == [task_id]
    assert app.cancel(UNKNOWN, task_id, "x") == []


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"task_ids": "x"}', b'{"task_ids": []}', b"{", b"\xff"])
def test_a_cancel_request_that_names_no_task_is_refused(app: Place, body: bytes) -> None:
    """It says in which form to name them."""
    answer = app.request("DELETE", "/v2/task/cancel/", content=body)
    assert answer.status_code == 400 and "task_ids" in answer.json()["advice"]


def test_a_result_alone_can_be_waited_for(place: Place) -> None:
    """`/result` has status and result and nothing else, and refuses what the record refuses."""
    place.deploy(
        """
        from treadle import task_queue

        @task_queue(retries=0)
        def handler(ok):
            return {"ok": 2**70} if ok else 1 / 0
        """,
        name="alone",
        file="alone.py",
    )
    good, bad = place.submit("alone", ok=True), place.submit("alone", ok=False)
    assert place.request("GET", f"/v2/task/{good}/result?wait=20").json() == {"status": "COMPLETE", "result": {"ok": 2**70}}
    assert place.request("GET", f"/v2/task/{bad}/result/?wait=20").json() == {"status": "FAILED", "result": None}
    assert place.request("GET", f"/v2/task/{good}/result?wait=x").status_code == 400
    assert place.request("GET", f"/v2/task/{good}/result", token="no").status_code == 401
    assert place.request("GET", "/v2/task/unknown/result").status_code == 404
