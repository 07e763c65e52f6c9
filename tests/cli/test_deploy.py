"""`treadle deploy`: steps, version, a curl that works; and one line for whatever is wrong."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from cli.conftest import Run, said_once
from sdk.peer import TOKEN, Peer

APP = """
from treadle import task_queue

print("hello from the app")

@task_queue
def handler(): pass

@task_queue(name="named", authorized=False)
def public(): pass

def plain(): pass
"""


@pytest.fixture
def app(folder: Path) -> Path:
    """app.py in the working directory."""
    path = folder / "app.py"
    path.write_text(APP)
    return path


def test_steps_version_and_curl_are_printed(treadle: Run, app: Path, peer: Peer) -> None:
    """A first deployment tells what it does and how to call it."""
    done = treadle("deploy", "app.py:handler", "--name", "thumbs")
    assert done.returncode == 0, done.stderr
    assert re.sub(r"\(1 file.*\)", "(…)", done.stdout) == (
        "hello from the app\n"
        "=> Building image\n   installing\n=> Image ready\n=> Syncing files\n=> Files synced (…)\n"
        "=> Deployed thumbs v1\n=> Invocation details\n"
        f"curl -X POST {peer.url}/taskqueue/thumbs/v1 \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -H 'Authorization: Bearer {TOKEN}' \\\n"
        "  -d '{}'\n"
    )
    assert done.stderr == ""


@pytest.mark.process
@pytest.mark.parametrize("function", ["handler", "public"])
def test_the_curl_works_when_pasted(treadle: Run, app: Path, peer: Peer, function: str) -> None:
    """The shell command as printed submits a task, with the token or, for a public queue, without."""
    out = treadle("deploy", f"app.py:{function}", "-n", "thumbs").stdout
    command = out[out.index("curl ") :]
    assert ("Authorization" in command) == (function == "handler")
    assert ("/taskqueue/public/" in command) == (function == "public")
    answer = subprocess.run(f"{command.strip()} -s", shell=True, capture_output=True, text=True, check=True).stdout
    assert json.loads(answer) == {"task_id": "task-1"}
    assert peer.requests[-1][2] == b"{}"


def test_a_second_deployment_uses_what_is_there(treadle: Run, app: Path, peer: Peer) -> None:
    """Cached image, unchanged files, next version."""
    treadle("deploy", "app.py:handler", "--name", "thumbs")
    out = treadle("deploy", "app.py:handler", "--name", "thumbs").stdout
    assert "=> Using cached image\n" in out
    assert "unchanged: not uploaded)" in out
    assert "=> Deployed thumbs v2\n" in out
    assert len(peer.paths("PUT")) == 1


def test_json_is_one_object_on_stdout(treadle: Run, app: Path, peer: Peer) -> None:
    """Programs read stdout; steps and the app's own prints go to stderr."""
    done = treadle("deploy", "app.py:handler", "--name", "thumbs", "--json")
    deployed = json.loads(done.stdout)
    assert deployed["invoke_url"] == f"{peer.url}/taskqueue/thumbs/v1"
    assert (deployed["deployment_name"], deployed["version"]) == ("thumbs", 1)
    assert {"deployment_id", "stub_id"} <= deployed.keys()
    assert "hello from the app" in done.stderr
    assert "=> Files synced" in done.stderr


def test_the_decorators_name_is_the_default(treadle: Run, app: Path) -> None:
    """Without --name, name= of the decorator is used."""
    assert "=> Deployed named v1" in treadle("deploy", "app.py:public").stdout


def test_a_file_in_a_folder_is_deployed_by_its_path(treadle: Run, folder: Path, peer: Peer) -> None:
    """The handler is the dotted path from the working directory; absolute paths mean the same."""
    (folder / "jobs").mkdir()
    (folder / "jobs/app.py").write_text(APP)
    treadle("deploy", "jobs/app.py:handler", "-n", "a")
    treadle("deploy", f"{folder}/jobs/app.py:handler", "-n", "a")
    assert [request.config.handler for request in peer.deployed] == ["jobs.app:handler"] * 2


def test_modules_beside_the_file_can_be_imported(treadle: Run, folder: Path) -> None:
    """The working directory is on the path, as in a container."""
    (folder / "settings.py").write_text("CPU = 2")
    (folder / "app.py").write_text(
        "import settings\nfrom treadle import task_queue\n@task_queue(cpu=settings.CPU)\ndef f(): pass"
    )
    assert treadle("deploy", "app.py:f", "-n", "a").returncode == 0


@pytest.mark.parametrize("module", ["beam", "beta9"])
def test_an_app_written_for_beam_deploys_unchanged(treadle: Run, folder: Path, peer: Peer, module: str) -> None:
    """`from beam import task_queue, Output, Image, PythonVersion` needs no edit."""
    (folder / "app.py").write_text(
        f"from {module} import task_queue, Output, Image, PythonVersion, QueueDepthAutoscaler, TaskPolicy, env\n"
        "image = Image(python_version=PythonVersion.Python311, python_packages=['pillow'])\n"
        "@task_queue(cpu=1.0, memory='256Mi', image=image, keep_warm_seconds=5, callback_url='https://example.com/',\n"
        "            autoscaler=QueueDepthAutoscaler(max_containers=2), task_policy=TaskPolicy(max_retries=2))\n"
        "def handler(**inputs): return Output(path='x').save()\n"
    )
    done = treadle("deploy", "app.py:handler", "--name", "x")
    assert done.returncode == 0, done.stderr
    assert peer.deployed[0].config.image.python_version == "python3.11"


def test_a_put_at_the_top_of_the_file_does_nothing(treadle: Run, app: Path, peer: Peer) -> None:
    """Importing the file to deploy it enqueues no task."""
    app.write_text(APP + "\nassert handler.put() is False\n")
    assert treadle("deploy", "app.py:handler", "-n", "a").returncode == 0
    assert not [path for path in peer.paths("POST") if path.startswith("/taskqueue/")]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("app.py", ["does not name a function", "FILE.py:FUNC", "handler, public"]),
        ("app.py:", ["does not name a function", "handler, public"]),
        ("app:handler", ["does not name a function", "FILE.py:FUNC"]),
        ("app", ["does not name a function", "FILE.py:FUNC"]),
        ("no.py:handler", ["no file 'no.py'", "FILE.py:FUNC"]),
        ("app.py:nothing", ["no function 'nothing'", "Task queues there: handler, public."]),
        ("app.py:plain", ["'plain' is not a task queue", "@task_queue", "handler, public"]),
    ],
)
def test_a_wrong_target_says_what_there_is(treadle: Run, app: Path, peer: Peer, target: str, said: list[str]) -> None:
    """One line: what is wrong with the target, and what could be meant."""
    app.write_text(APP.replace('print("hello from the app")', ""))
    line = said_once(treadle("deploy", target, "--name", "x"))
    assert [word for word in said if word not in line] == []
    assert peer.requests == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import no_such_module_here", ["app.py:1", "ModuleNotFoundError", "no_such_module_here", "is_remote"]),
        ("x = = 1", ["app.py:1", "SyntaxError"]),
        ("\n1 / 0", ["app.py:2", "ZeroDivisionError"]),
        ("raise SystemExit(3)", ["app.py:1", "SystemExit"]),
        ("from beam import CloudBucket", ["app.py:1", "CloudBucket", "does not have this part of Beam"]),
        (
            "from treadle import task_queue\n@task_queue(cpu=1000)\ndef f(): pass",
            ["app.py:2: cpu=1000 is not allowed", "0.1 to 64"],
        ),
        ("def f(): pass", ["'f' is not a task queue", "Decorate one with @task_queue"]),
        ("", ["no function 'f'", "Decorate one"]),
    ],
)
def test_a_file_that_does_not_import_says_where(treadle: Run, app: Path, body: str, said: list[str]) -> None:
    """One line with file, line and error; never a traceback of ours."""
    app.write_text(body)
    line = said_once(treadle("deploy", "app.py:f", "--name", "x"))
    assert [word for word in said if word not in line] == []


def test_a_file_that_a_container_could_not_import_is_refused(treadle: Run, folder: Path, app: Path) -> None:
    """Names that are no module's, names of Python's own modules, and files elsewhere."""
    for name, said in {"my-app.py": "Rename", "queue.py": "Python's own module", "../app.py": "Run this from"}.items():
        (folder / name).write_text(APP)
        assert said in said_once(treadle("deploy", f"{name}:handler", "-n", "x"))


def test_a_wrong_or_missing_name_is_told_before_anything_is_sent(treadle: Run, app: Path, peer: Peer) -> None:
    """The name becomes part of the URL."""
    app.write_text(APP.replace('print("hello from the app")', ""))
    assert "letters, digits" in said_once(treadle("deploy", "app.py:handler", "--name", "two words"))
    assert "--name NAME" in said_once(treadle("deploy", "app.py:handler"))
    assert peer.requests == []


def test_a_wrong_token_is_told(treadle: Run, app: Path) -> None:
    """The server's answer and advice in one line, after the app's own print."""
    done = treadle("deploy", "app.py:handler", "--name", "x", TREADLE_TOKEN="wrong")
    assert done.returncode == 1
    assert done.stderr == "error: The token is not known here. Set TREADLE_TOKEN.\n"


def test_no_server_is_told(treadle: Run, app: Path) -> None:
    """A configured server that does not answer: its URL, and how to start one."""
    done = treadle("deploy", "app.py:handler", "--name", "x", TREADLE_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("error: No server answers at http://127.0.0.1:9 (connection refused).")
    assert "treadle up" in done.stderr
