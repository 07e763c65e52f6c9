"""`treadle task`: list, show, wait and cancel, for people and for programs."""

from __future__ import annotations

import json

import pytest

from cli.conftest import Run, said_once
from sdk.peer import TIME, Peer, task_view
from treadle.model.api import AttemptView, DeploymentRef, OutputView

LATER = "2026-02-03T10:00:02.620441Z"


@pytest.fixture
def tasks(peer: Peer) -> Peer:
    """One task of each kind."""
    failed = AttemptView(1, "FAILED", "c", TIME, LATER, "exception", "ValueError: no", "Traceback\n  File x")
    output = OutputView("a.png", "http://host/a", 3600, "out-1", 1500)
    peer.set_task(
        task_view("done", "COMPLETE", '{"n":1}', started_at=TIME, ended_at=LATER, outputs=[output], attempts=[failed])
    )
    peer.set_task(task_view("bad", "FAILED", failure_reason="ValueError: no", attempts=[failed]))
    draft = DeploymentRef(None, None, None)
    peer.set_task(task_view("waiting", "PENDING", why="waits for a container", deployment=draft))
    return peer


def test_list_is_a_table_newest_first(treadle: Run, tasks: Peer) -> None:
    """Columns for people, and how many there are."""
    lines = treadle("task", "list").stdout.splitlines()
    assert lines[0].split() == ["TASK", "ID", "STATUS", "ATTEMPTS", "CREATED", "RAN", "DEPLOYMENT"]
    assert [line.split()[:2] for line in lines[1:-1]] == [["waiting", "PENDING"], ["bad", "FAILED"], ["done", "COMPLETE"]]
    assert lines[1].endswith("  app:f (draft)")
    assert lines[3].endswith("2.5 s  thumbs v1")
    assert lines[-1] == "3 items"


def test_list_goes_on_over_pages_up_to_the_limit(treadle: Run, peer: Peer) -> None:
    """A limit above one page asks for more pages."""
    for number in range(150):
        peer.set_task(task_view(f"task-{number}"))
    assert treadle("task", "list", "--limit", "120").stdout.endswith("120 items\n")
    assert peer.paths("GET") == ["/v2/task/?limit=100", "/v2/task/?limit=20&cursor=100"]


def test_list_filters(treadle: Run, tasks: Peer) -> None:
    """By status, in any case, and by the name of the deployment."""
    done = treadle("task", "list", "--status", "failed", "--name", "thumbs", "--json")
    assert [task["id"] for task in json.loads(done.stdout)] == ["bad"]
    assert tasks.paths("GET") == ["/v2/task/?limit=20&status=FAILED&stub_names=thumbs"]


def test_list_refuses_a_status_that_is_none(treadle: Run, peer: Peer) -> None:
    """The error lists the statuses."""
    line = said_once(treadle("task", "list", "--status", "ERROR"))
    assert "--status='ERROR'" in line
    assert "PENDING, RUNNING, RETRY, COMPLETE, FAILED" in line


def test_show_tells_what_there_is(treadle: Run, tasks: Peer) -> None:
    """State, result, attempts with tracebacks, outputs."""
    lines = [line.split(maxsplit=1) for line in treadle("task", "show", "done").stdout.splitlines()]
    facts = {words[0]: words[-1] for words in lines}
    assert facts["status:"] == "COMPLETE"
    assert facts["result:"] == '{"n":1}'
    assert facts["attempt:"] == "1  FAILED  ran 2.5 s  ValueError: no"
    assert facts["File"] == "x"
    assert facts["output:"] == "a.png (1.5 kB) http://host/a"
    assert "why:" not in facts
    assert "waits for a container" in treadle("task", "show", "waiting").stdout


def test_show_prints_equal_tracebacks_once(treadle: Run, peer: Peer) -> None:
    """A task that failed the same way at each attempt shows that way once, and which attempt it was."""
    tries = [
        AttemptView(n, "FAILED", "c", TIME, LATER, "exception", "E: no", "Traceback\n  File " + file)
        for n, file in enumerate("xxy", 1)
    ]
    peer.set_task(task_view("bad", "FAILED", attempts=tries))
    lines = [line.strip() for line in treadle("task", "show", "bad").stdout.splitlines()]
    at = lines.index("attempt:    1  FAILED  ran 2.5 s  E: no")
    assert lines[at + 1 : at + 3] == ["Traceback", "File x"]
    assert lines[at + 4] == "(traceback as of attempt 1)"
    assert lines[at + 6 :] == ["Traceback", "File y"]


def test_show_json_is_the_servers_object(treadle: Run, tasks: Peer) -> None:
    """Nothing is renamed or lost on the way."""
    shown = json.loads(treadle("task", "show", "done", "--json").stdout)
    assert shown["result"] == {"n": 1}
    assert shown["external_workspace"] is None


def test_wait_is_good_when_all_are(treadle: Run, tasks: Peer) -> None:
    """Exit code 0 when each task ended COMPLETE."""
    done = treadle("task", "wait", "done", "done")
    assert (done.returncode, done.stdout) == (0, "done  COMPLETE\ndone  COMPLETE\n")


def test_wait_fails_when_one_failed(treadle: Run, tasks: Peer) -> None:
    """Exit code 1, with each task's end in a line."""
    done = treadle("task", "wait", "bad", "done")
    assert (done.returncode, done.stdout) == (1, "bad  FAILED  ValueError: no\ndone  COMPLETE\n")


def test_wait_gives_up_in_time(treadle: Run, tasks: Peer) -> None:
    """Exit code 1, and the reason why it still waits."""
    done = treadle("task", "wait", "waiting", "--timeout", "0.1")
    assert done.returncode == 1
    assert "was still PENDING after 0.1 s (waits for a container)" in done.stderr


def test_wait_json_is_a_list(treadle: Run, tasks: Peer) -> None:
    """One object a task, in the order asked for."""
    done = treadle("task", "wait", "bad", "done", "--json")
    assert [task["id"] for task in json.loads(done.stdout)] == ["bad", "done"]
    assert done.returncode == 1


def test_cancel_says_what_was_cancelled(treadle: Run, tasks: Peer) -> None:
    """One line a task; exit code 1 when one was not cancelled."""
    assert treadle("task", "cancel", "waiting").stdout == "Task waiting cancelled.\n"
    done = treadle("task", "cancel", "waiting", "done")
    assert done.returncode == 1
    assert "! Task done was not cancelled: it is final already" in done.stdout
    assert json.loads(treadle("task", "cancel", "waiting", "--json").stdout) == {"cancelled": ["waiting"]}


def test_an_unknown_task_is_told(treadle: Run, peer: Peer) -> None:
    """The server's message and advice, in one line."""
    line = said_once(treadle("task", "show", "nope"))
    assert line == "error: There is no task nope. `treadle task list` shows them."


@pytest.mark.parametrize("command", [("task", "list"), ("task", "show", "x"), ("task", "cancel", "x"), ("webhook", "key")])
def test_without_a_server_each_command_says_so(treadle: Run, command: tuple[str, ...]) -> None:
    """One line with the URL and `treadle up`."""
    line = said_once(treadle(*command, TREADLE_URL="http://127.0.0.1:9"))
    assert "No server answers at http://127.0.0.1:9" in line
    assert "treadle up" in line


@pytest.mark.parametrize("command", [("task", "list"), ("webhook", "key")])
def test_with_a_wrong_token_each_command_says_so(treadle: Run, command: tuple[str, ...]) -> None:
    """Also when there is none at all."""
    for token in ("wrong", ""):
        assert "TREADLE_TOKEN" in said_once(treadle(*command, TREADLE_TOKEN=token))


def test_webhook_key_prints_the_key_alone(treadle: Run, peer: Peer) -> None:
    """Ready for `$(treadle webhook key)`."""
    assert treadle("webhook", "key").stdout == "sk_secret\n"
    assert json.loads(treadle("webhook", "key", "--json").stdout) == {"signing_key": "sk_secret"}
