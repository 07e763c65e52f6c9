"""What `treadle` says when something is wrong: one line on stderr that helps, an exit code that tells, no traceback."""

from __future__ import annotations

import socket
import textwrap
from pathlib import Path

import pytest
from place import Place

pytestmark = pytest.mark.e2e

UNKNOWN = "00000000-0000-0000-0000-000000000000"
APP = """
    from treadle import task_queue

    @task_queue()
    def handler(): pass

    @task_queue()
    def second(): pass

    def plain(): pass

    constant = 5
"""
FILES = {
    "raises.py": "x = 1\nraise RuntimeError('at import')\n",
    "syntax.py": "def handler(:\n",
    "imports.py": "import no_such_module_7431\n",
    "exits.py": "import sys\nsys.exit(3)\n",
    "none.py": "x = 1\n",
    "text.txt": "",
    "my-app.py": textwrap.dedent(APP),
    "json.py": textwrap.dedent(APP),
    "latin.py": "x = 'caf\xe9'\n",
}


@pytest.fixture(scope="module")
def app(place: Place) -> Place:
    place.app(APP)
    for name, text in FILES.items():
        (place.code / name).write_bytes(text.encode("latin-1"))
    return place


def error(place: Place, *command: str, env: dict[str, str] | None = None, code: int = 1) -> str:
    """The one line of an error."""
    done = place.cli(*command, env=env)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    return done.stderr


DEPLOY = {
    "missing.py:handler": ["no file 'missing.py'", "FILE.py:FUNC"],
    "text.txt:handler": ["FILE.py:FUNC"],
    ".:handler": ["FILE.py:FUNC"],
    "app.py": ["does not name a function", "handler, second"],
    "app.py:": ["does not name a function", "handler, second"],
    "handler": ["FILE.py:FUNC"],
    "app.py:missing": ["has no function 'missing'", "handler, second"],
    "app.py:plain": ["'plain' is not a task queue", "@task_queue"],
    "app.py:constant": ["'constant' is not a task queue"],
    "none.py:handler": ["has no function 'handler'", "@task_queue"],
    "raises.py:handler": ["raises.py:2", "RuntimeError: at import"],
    "syntax.py:handler": ["syntax.py:1", "SyntaxError"],
    "imports.py:handler": ["imports.py:1", "no_such_module_7431", "inside the function"],
    "exits.py:handler": ["exits.py:2", "SystemExit"],
    "latin.py:handler": ["latin.py", "SyntaxError"],
    "my-app.py:handler": ["'my-app'", "Rename"],
    "json.py:handler": ["'json'", "Rename"],
    "../app.py:handler": ["../app.py"],
}


@pytest.mark.parametrize("target", DEPLOY)
def test_a_wrong_file_or_function_is_told(app: Place, target: str) -> None:
    """It says what is wrong with the target, where, and what there is instead."""
    said = error(app, "deploy", target, "--name", "q")
    assert all(part in said for part in DEPLOY[target]), said


def test_a_file_outside_the_working_directory_is_told(app: Place, tmp_path: Path) -> None:
    """It says from where to run the command."""
    (tmp_path / "app.py").write_text("")
    assert f"Run this from {tmp_path}" in error(app, "deploy", f"{tmp_path}/app.py:handler", "--name", "q")


@pytest.mark.parametrize("name", ["a/b", "-", "ü", "x" * 65, "latest", "a b"])
def test_a_wrong_name_is_told(app: Place, name: str) -> None:
    """It says which names there may be; nothing is built or uploaded before."""
    said = error(app, "deploy", "app.py:handler", f"--name={name}")
    assert "name=" in said and "letters, digits" in said


def test_a_missing_name_is_told(app: Place) -> None:
    """It says the two places where a name can be given."""
    said = error(app, "deploy", "app.py:handler")
    assert "--name" in said and "decorator" in said


COMMANDS = [
    ["deploy", "app.py:handler", "--name", "q"],
    ["task", "list"],
    ["task", "show", UNKNOWN],
    ["task", "wait", UNKNOWN],
    ["task", "cancel", UNKNOWN],
    ["webhook", "key"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_wrong_token_is_told(app: Place, command: list[str]) -> None:
    """It says that the server does not know it and where the right one is."""
    env = {"TREADLE_URL": app.url, "TREADLE_TOKEN": "wrong"}
    said = error(app, *command, env=env)
    assert "token" in said and "credentials.toml" in said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_server_that_does_not_answer_is_told(app: Place, command: list[str]) -> None:
    """It names the URL and the reason, and says how to start one; a configured one is never replaced."""
    with socket.socket() as listener:  # bound and not listening: nobody else can take the port
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        said = error(app, *command, env={"TREADLE_URL": url})
    assert f"No server answers at {url}" in said and "treadle up" in said


def test_a_folder_without_a_server_is_told(app: Place, tmp_path: Path) -> None:
    """Asking questions starts no server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        (tmp_path / "config.toml").write_text(f"port = {listener.getsockname()[1]}\n")
        for command in (["task", "list"], ["webhook", "key"], ["down"]):
            assert "server" in error(app, *command, env={"TREADLE_DATA": str(tmp_path)})
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_something_else_that_answers_is_told(app: Place, receiver: object) -> None:
    """A URL that is no Treadle server's is named as the likely cause."""
    url = receiver.url.removesuffix("/hook")  # type: ignore[attr-defined]
    assert "TREADLE_URL" in error(app, "task", "list", env={"TREADLE_URL": url})


@pytest.mark.parametrize(
    "command",
    [
        ["task", "show", UNKNOWN],
        ["task", "wait", UNKNOWN],
        ["task", "show", "abc"],
    ],
    ids=" ".join,
)
def test_an_unknown_task_is_told(app: Place, command: list[str]) -> None:
    """It names the id and the command that shows the newest ones."""
    said = error(app, *command)
    assert command[-1] in said and "treadle task list" in said


WRONG_USE = {
    ("nosuch",): "nosuch",
    ("task", "nosuch"): "nosuch",
    ("deploy",): "FILE.py:FUNC",
    ("deploy", "app.py:handler", "--nosuch"): "--nosuch",
    ("task", "show"): "ID",
    ("task", "list", "--limit", "0"): "--limit",
    ("task", "list", "--limit", "many"): "--limit",
    ("up", "--port", "http"): "--port",
}


@pytest.mark.parametrize("command", WRONG_USE, ids=" ".join)
def test_wrong_use_is_told_with_the_help_to_read(app: Place, command: tuple[str, ...]) -> None:
    """Exit code 2, as for every command of a shell."""
    said = error(app, *command, code=2)
    assert WRONG_USE[command] in said and "--help`" in said


WRONG_SETTINGS: dict[str, tuple[list[str], dict[str, str], str]] = {
    "url": (["task", "list"], {"TREADLE_URL": "localhost:1994"}, "TREADLE_URL='localhost:1994'"),
    "port": (["up", "--port", "70000"], {}, "0 to 65535"),
    "status": (["task", "list", "--status", "DONE"], {}, "PENDING"),
    "host": (["up", "--port", "0", "--host", "no.such.host.invalid"], {}, "no.such.host.invalid"),
}


@pytest.mark.parametrize("setting", WRONG_SETTINGS)
def test_a_wrong_setting_is_told_with_what_is_allowed(app: Place, setting: str, tmp_path: Path) -> None:
    """Flag or variable, its value, and the values that there are."""
    command, env, told = WRONG_SETTINGS[setting]
    said = error(app, *command, env={"TREADLE_DATA": str(tmp_path)} | env)
    assert told in said


def test_a_folder_that_cannot_be_made_is_told(app: Place, tmp_path: Path) -> None:
    """A data folder below a file is named."""
    (tmp_path / "file").touch()
    said = error(app, "up", "--port", "0", "--data", str(tmp_path / "file" / "data"))
    assert str(tmp_path / "file") in said


def test_help_and_version_are_no_errors(app: Place) -> None:
    """They go to stdout with exit code 0, and so does the bare command."""
    for command in ([], ["--help"], ["--version"], ["deploy", "--help"], ["task", "--help"]):
        done = app.cli(*command)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout
