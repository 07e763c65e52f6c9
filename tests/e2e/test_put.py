"""`.put()` from a plain script, the handle it returns, and `treadle task …` on what was put."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from place import Place, free_port, until

pytestmark = pytest.mark.e2e

APP = """
    import pathlib, time
    from treadle import Output, TaskPolicy, task_queue

    @task_queue(keep_warm_seconds=60, task_policy=TaskPolicy(retry_delay=0.05), retries=1)
    def handler(x, y=0, go="", fail=False):
        if fail:
            raise ValueError("no luck")
        while go and not pathlib.Path(go).exists():
            time.sleep(0.01)
        pathlib.Path("sum.txt").write_text(str(x + y))
        Output(path="sum.txt").save()
        return x + y
"""
SCRIPT = """
    import json, pathlib, sys
    from app import handler
"""
TASK_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def app(place: Place) -> Place:
    """A place with app.py beside the scripts, deployed too for tests that need no script of their own."""
    place.deploy(APP, name="app")
    return place


def run(place: Place, body: str, env: dict[str, str] | None = None) -> list[str]:
    """The lines that a script with this body prints."""
    indented = "\n".join("    " + line for line in body.strip().splitlines())
    done = place.script(SCRIPT + indented + "\n", env)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.splitlines()


def facts(place: Place, *command: str) -> Any:
    """What a command prints with --json."""
    done = place.cli(*command, "--json")
    return json.loads(done.stdout)


# put


def test_put_prints_each_step_and_the_id_and_returns_a_handle(app: Place) -> None:
    """Image, files, then a line with the id for each task; image and files only once a process."""
    lines = run(app, "print([handler.put(1).id, handler.put(x=2, y=3).id])")
    assert lines[0] in ("=> Building image", "=> Using cached image")
    synced = lines.index("=> Syncing files")
    assert lines[synced + 1].startswith("=> Files synced (")
    told = [re.fullmatch(f"=> Enqueued task: ({TASK_ID})", line) for line in lines[synced + 2 : -1]]
    assert [match and match[1] for match in told] == re.findall(TASK_ID, lines[-1])
    assert [app.ended(match[1])["result"] for match in told if match] == [1, 5]


def test_a_second_script_uses_the_cached_image_and_the_same_draft(app: Place) -> None:
    """Nothing is built or uploaded again for unchanged code, and both tasks are of one definition."""
    script = "print(handler.put(1).id)"
    first, second = run(app, script), run(app, script)
    assert second[:3] == ["=> Using cached image", "=> Syncing files", second[2]]
    assert "unchanged: not uploaded" in second[2]
    stubs = {app.task(lines[-1])["stub"]["id"] for lines in (first, second)}
    assert len(stubs) == 1
    assert app.task(first[-1])["deployment"] == {"id": None, "name": None, "version": None}


def test_a_handle_tells_the_whole_life_of_its_task(app: Place, tmp_path: Path) -> None:
    """Status, result and outputs before and after the end; `result(wait=True)` waits for it."""
    lines = run(
        app,
        f"""
go = pathlib.Path({str(tmp_path / "go")!r})
task = handler.put(20, y=22, go=str(go))
before = [task.status() in ("PENDING", "RUNNING"), task.is_complete(), task.result(), task.outputs()]
go.touch()
result = task.result(wait=True, timeout=30)
(output,) = task.outputs()
after = [task.status(), task.is_complete(), result, task.result(), output.name, output.expires_in, output.url]
print(json.dumps([before, after, task.cancel()]))
""",
    )
    before, after, cancelled = json.loads(lines[-1])
    assert before == [True, False, None, []]
    assert after[:-1] == ["COMPLETE", True, 42, 42, "sum.txt", 3600] and cancelled is False
    assert app.request("GET", after[-1], token="").text == "42"


def test_waiting_for_a_result_has_an_end(app: Place, tmp_path: Path) -> None:
    """After `timeout` seconds there is a TimeoutError with the status; the task can be cancelled, once."""
    lines = run(
        app,
        f"""
task = handler.put(1, go={str(tmp_path / "go")!r})
try:
    task.result(wait=True, timeout=0.2)
except TimeoutError as error:
    print(error)
print([task.cancel(), task.cancel(), str(task.status())])
""",
    )
    assert "after 0.2 s" in lines[-2] and re.search("PENDING|RUNNING", lines[-2])
    assert lines[-1] == "[True, False, 'CANCELLED']"


def test_the_result_of_a_failed_task_is_an_error_with_its_reason(app: Place) -> None:
    """The error says how the task ended, why, and where to read more; nothing is raised before its end."""
    lines = run(
        app,
        """
from treadle import TreadleError
task = handler.put(1, fail=True)
try:
    task.result(wait=True, timeout=30)
except TreadleError as error:
    print(type(error).__name__, error)
print(str(task.status()))
""",
    )
    assert lines[-1] == "FAILED"
    assert (
        lines[-2].startswith("TaskFailed ")
        and "ValueError: no luck" in lines[-2]
        and "treadle task show" in lines[-2]
    )


def test_arguments_that_are_not_json_are_refused_before_anything_is_sent(app: Place) -> None:
    """A TypeError that names the function; no step is printed."""
    lines = run(
        app,
        """
for bad in ({1, 2}, float("nan"), object()):
    try:
        handler.put(bad)
    except TypeError as error:
        print(error)
""",
    )
    assert len(lines) == 3 and all("handler.put() must be JSON" in line for line in lines)


def test_put_while_the_module_is_imported_does_nothing(app: Place) -> None:
    """An app that puts at its top can be deployed and run: only a script's own run enqueues."""
    app.app(
        """
        from treadle import task_queue

        @task_queue()
        def handler():
            return handle is False

        handle = handler.put()
        """,
        "top.py",
    )
    done = app.cli("deploy", "top.py:handler", "--name", "top", "--json")
    assert done.returncode == 0, done.stderr
    assert "Enqueued" not in done.stderr
    assert app.ended(app.submit("top"))["result"] is True


# a server of its own


@pytest.fixture
def alone(own_place: Place) -> Iterator[Place]:
    """A place where no server runs and none is configured but the port at which one would listen."""
    port = free_port()
    own_place.data.mkdir()
    (own_place.data / "config.toml").write_text(f"port = {port}\n")
    own_place.url = f"http://127.0.0.1:{port}"
    own_place.app(APP)
    yield own_place
    own_place.cli("down")


def test_put_starts_a_server_when_none_runs_and_says_so(alone: Place) -> None:
    """It says where and how to stop it; it goes on running after the script, and the next script uses it."""
    script = "print(handler.put(1, y=1).result(wait=True, timeout=30))"
    first = run(alone, script)
    assert first[0].startswith(f"=> Started a local server at {alone.url} ") and "treadle down" in first[0]
    assert first[-1] == "2"
    server = json.loads((alone.data / "server.json").read_text())
    second = run(alone, script)
    assert second[0] == "=> Using cached image" and second[-1] == "2"
    assert json.loads((alone.data / "server.json").read_text()) == server
    down = alone.cli("down")
    assert down.returncode == 0, down.stderr
    assert f"pid {server['pid']}" in down.stdout
    assert alone.processes() == []


def test_two_scripts_at_once_start_one_server(alone: Place) -> None:
    """Whoever comes second uses the server of the first."""
    alone.app("from app import handler\nprint(handler.put(1).result(wait=True, timeout=60))\n", "both.py")
    started = [
        subprocess.Popen(
            [sys.executable, str(alone.code / "both.py")],
            cwd=alone.code,
            env=alone.environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=90)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert [text.splitlines()[-1] for text in said] == ["1", "1"]
    assert len(facts(alone, "task", "list")) == 2


def test_a_configured_server_that_does_not_run_is_not_replaced(alone: Place) -> None:
    """With TREADLE_URL set, a server that does not answer is an error, and none is started."""
    done = alone.script(SCRIPT + "    handler.put(1)\n", {"TREADLE_URL": alone.url})
    assert done.returncode != 0 and "Unreachable" in done.stderr
    assert f"No server answers at {alone.url}" in done.stderr.splitlines()[-1]
    assert alone.processes() == [] and not (alone.data / "server.json").exists()


# treadle task


def test_tasks_are_listed_newest_first(app: Place) -> None:
    """A table for people, records with --json; limited and filtered as asked."""
    made = [app.submit("app", x=1), app.submit("app", x=2), app.submit("app", x=3, fail=True)]
    app.ended(made[2])
    app.ended(made[1])
    assert [task["id"] for task in facts(app, "task", "list", "--limit", "3")] == made[::-1]
    assert [task["id"] for task in facts(app, "task", "list", "--limit", "1", "--status", "failed")] == [made[2]]
    assert facts(app, "task", "list", "--name", "no-such-name") == []
    header, *rows, count = app.cli("task", "list", "--limit", "2").stdout.splitlines()
    assert header.split()[:3] == ["TASK", "ID", "STATUS"] and count == "2 items"
    assert [row.split()[:3] for row in rows] == [[made[2], "FAILED", "2"], [made[1], "COMPLETE", "1"]]


def test_a_task_is_shown_with_result_attempts_and_outputs(app: Place) -> None:
    """For people the facts that there are; with --json the record."""
    good, bad = app.submit("app", x=20, y=22), app.submit("app", x=1, fail=True)
    app.ended(good)
    app.ended(bad)
    shown = app.cli("task", "show", good).stdout
    lines = dict(line.split(":", 1) for line in shown.splitlines())
    assert lines["status"].strip() == "COMPLETE" and lines["result"].strip() == "42"
    assert "sum.txt (2 B) http" in lines["output"] and "failure" not in lines
    assert facts(app, "task", "show", good)["result"] == 42
    failed = app.cli("task", "show", bad).stdout
    assert failed.count("attempt:") == 2 and failed.count('raise ValueError("no luck")') == 1
    assert re.search(r"failure:\s+ValueError: no luck", failed)


def test_waiting_on_the_command_line_tells_how_tasks_ended(app: Place) -> None:
    """A line a task; exit code 0 only when all are COMPLETE."""
    good, bad = app.submit("app", x=1), app.submit("app", x=1, fail=True)
    waited = app.cli("task", "wait", good)
    assert (waited.returncode, waited.stdout) == (0, f"{good}  COMPLETE\n")
    both = app.cli("task", "wait", good, bad)
    assert (both.returncode, both.stdout) == (1, f"{good}  COMPLETE\n{bad}  FAILED  ValueError: no luck\n")
    assert [task["status"] for task in facts(app, "task", "wait", good, bad)] == ["COMPLETE", "FAILED"]


def test_waiting_on_the_command_line_has_an_end_too(app: Place, tmp_path: Path) -> None:
    """With --timeout it gives up in time, with an exit code that says so, and the task goes on."""
    go = tmp_path / "go"
    task_id = app.submit("app", x=1, go=str(go))
    late = app.cli("task", "wait", task_id, "--timeout", "0.2")
    assert late.returncode == 1 and late.stderr.count("\n") == 1 and "after 0.2 s" in late.stderr
    go.touch()
    assert app.cli("task", "wait", task_id).returncode == 0


def test_a_task_is_cancelled_on_the_command_line(app: Place, tmp_path: Path) -> None:
    """It says so; what is final or unknown is told and gives exit code 1."""
    task_id = app.submit("app", x=1, go=str(tmp_path / "go"))
    app.running(task_id)
    done = app.cli("task", "cancel", task_id, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"cancelled": [task_id]})
    until(lambda: facts(app, "task", "show", task_id)["status"] == "CANCELLED", what="the cancel")
    again = app.cli("task", "cancel", task_id)
    assert again.returncode == 1 and "was not cancelled" in again.stdout + again.stderr
