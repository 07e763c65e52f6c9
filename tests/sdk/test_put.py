"""put and deploy: image, source and deployment are made once, and every step is told."""

from __future__ import annotations

import importlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from sdk.peer import Peer
from treadle.model.errors import BuildFailed, InvalidOption, QueueFull, Unreachable
from treadle.model.settings import Settings
from treadle.sdk.console import Console, amount
from treadle.sdk.handle import TaskHandle
from treadle.sdk.local import ensure_server, start_server

APP = """
from treadle import task_queue, Image

@task_queue(name="thumbs", image=Image(python_packages=["pillow"]), memory="1gi")
def make(x, *, size=1):
    return x * size

@task_queue
def other():
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of an app, apart from the data folder."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def load_app(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], ModuleType]]:
    """Write app.py and import it as a new process would."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load() -> ModuleType:
        (folder / "app.py").write_text(APP)
        sys.modules.pop("app", None)
        return importlib.import_module("app")

    yield load
    sys.modules.pop("app", None)


def test_the_first_put_prepares_and_tells(
    configured: Peer, load_app: Callable[[], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines for image, files and task, in this order; a handle with the id."""
    handle = load_app().make.put(3, size=2)
    lines = capsys.readouterr().out.splitlines()
    assert isinstance(handle, TaskHandle)
    assert [lines[0], *lines[1:5]] == [
        "=> Building image", "   installing", "=> Image ready", "=> Syncing files", lines[4],
    ]  # fmt: skip
    assert lines[4].startswith("=> Files synced (1 file, ")
    assert lines[5:] == [f"=> Enqueued task: {handle.id}"]
    assert configured.requests[-1][1:] == ("/taskqueue/id/dep-1", b'{"args": [3], "kwargs": {"size": 2}}')


def test_the_draft_holds_definition_source_and_image(configured: Peer, load_app: Callable[[], ModuleType]) -> None:
    """What was declared and what lies in the working directory is what runs."""
    load_app().make.put(1)
    request = configured.deployed[0]
    assert request.name == ""
    assert (request.config.handler, request.config.memory) == ("app:make", 1024)
    assert request.image_id == "image-1"
    with zipfile.ZipFile(BytesIO(configured.sources[request.source_id])) as archive:
        assert archive.read("app.py").decode() == APP


def test_further_puts_only_enqueue(
    configured: Peer, load_app: Callable[[], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """The second task of a process needs one request."""
    app = load_app()
    app.make.put(1)
    before = len(configured.requests)
    capsys.readouterr()
    handle = app.make.put(2)
    assert len(configured.requests) == before + 1
    assert capsys.readouterr().out == f"=> Enqueued task: {handle.id}\n"


def test_unchanged_files_and_images_are_not_sent_again(
    configured: Peer, load_app: Callable[[], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """A second process with the same files uploads nothing, and says so."""
    load_app().make.put(1)
    capsys.readouterr()
    load_app().make.put(1)
    out = capsys.readouterr().out
    assert len(configured.paths("PUT")) == 1
    assert "=> Using cached image\n=> Syncing files\n=> Files synced (" in out
    assert "unchanged: not uploaded)" in out
    assert "Building" not in out


def test_deploy_makes_versions_of_a_name(configured: Peer, load_app: Callable[[], ModuleType]) -> None:
    """The decorator's name is the default; an argument goes first."""
    app = load_app()
    assert (app.make.deploy().deployment_name, app.make.deploy().version) == ("thumbs", 2)
    assert app.make.deploy("prints").invoke_url == f"{configured.url}/taskqueue/prints/v1"


def test_deploy_without_a_name_asks_for_one(configured: Peer, load_app: Callable[[], ModuleType]) -> None:
    """Nothing is built or sent before the name is known to be good."""
    with pytest.raises(InvalidOption, match="--name NAME"):
        load_app().other.deploy()
    with pytest.raises(InvalidOption, match="letters, digits"):
        load_app().other.deploy("two words")
    assert configured.requests == []


def test_a_build_that_fails_says_why(configured: Peer, load_app: Callable[[], ModuleType]) -> None:
    """The builder's reason is the error; nothing is deployed."""
    configured.build_error = "No package named pilow."
    with pytest.raises(BuildFailed, match="pilow"):
        load_app().make.put(1)
    assert configured.deployed == []


def test_a_refused_task_raises_the_reason(configured: Peer, load_app: Callable[[], ModuleType]) -> None:
    """A full queue is told with its limit, and the process goes on."""
    app = load_app()
    app.make.put(1)
    configured.refuse = QueueFull("10000 tasks are unfinished, the limit (max_pending_tasks).")
    with pytest.raises(QueueFull, match="10000"):
        app.make.put(2)


def test_a_configured_server_that_is_not_there_is_told(
    load_app: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No server is started in place of one that was named."""
    monkeypatch.setenv("TREADLE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TREADLE_DATA", str(tmp_path / "data"))
    with pytest.raises(Unreachable, match="treadle up"):
        load_app().make.put(1)
    assert not (tmp_path / "data").exists()


def test_left_out_links_are_told(
    configured: Peer, folder: Path, load_app: Callable[[], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """A link that leads outside is a warning, not an error."""
    (folder / "out").symlink_to("/etc/hostname")
    load_app().make.put(1)
    assert "! Left out out: a symbolic link that leads outside" in capsys.readouterr().out


def test_a_server_that_answers_is_used_with_the_token_of_its_folder(peer: Peer, tmp_path: Path) -> None:
    """Without a configured URL, a running server is found and no other is started."""
    (tmp_path / "credentials.toml").write_text(f'url = "{peer.url}"\nworkspace = "default"\ntoken = "of-the-folder"')
    settings = Settings(data=tmp_path, url=peer.url)
    said = StringIO()
    assert ensure_server(settings, Console(said)).token == "of-the-folder"
    assert said.getvalue() == ""


def test_a_foreign_server_is_told(peer: Peer, tmp_path: Path) -> None:
    """A server of another data folder cannot be used without its token."""
    with pytest.raises(Exception, match=rf"{peer.url}, but {tmp_path} holds no token.*TREADLE_TOKEN"):
        ensure_server(Settings(data=tmp_path, url=peer.url), Console(StringIO()))


@pytest.mark.process
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The last line of its log is in the error, with the log's path."""
    (tmp_path / "config.toml").write_text("prot = 1")
    with pytest.raises(Exception, match=r"ended when it was started.*prot=1.*server\.log"):
        start_server(Settings(data=tmp_path, port=1))


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_949, "9.9 kB"), (12_345, "12 kB"), (999_499, "999 kB"),
     (999_501, "1.0 MB"), (1024**3, "1.1 GB"), (5 * 10**12, "5000 GB")],
)  # fmt: skip
def test_amounts_are_short(size: int, shown: str) -> None:
    """Bytes are shown with two digits or so."""
    assert amount(size) == shown


def test_a_table_has_columns() -> None:
    """Cells are padded, ends of lines are not."""
    said = StringIO()
    Console(said).table(("ID", "STATUS"), [("1", "OK"), ("long", "")])
    assert said.getvalue() == "ID    STATUS\n1     OK\nlong\n"


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, "\x1b[1;36m=> \x1b[0m\x1b[1mImage ready\x1b[0m\r\n"),
        ({"NO_COLOR": "1"}, "=> Image ready\r\n"),
        ({"TERM": "dumb"}, "=> Image ready\r\n"),
    ],
)
def test_lines_have_colours_where_a_terminal_may_show_them(
    environ: dict[str, str], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal gets styles, unless NO_COLOR or its kind forbids them; a pipe never does."""
    for name, value in ({"NO_COLOR": "", "TERM": "xterm"} | environ).items():
        monkeypatch.setenv(name, value)
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        Console(terminal).step("Image ready")
        assert screen.read(1000).decode() == shown


def test_a_config_survives_the_wire(configured: Peer, load_app: Callable[[], ModuleType]) -> None:
    """What the server decodes is what the decorator made."""
    app = load_app()
    app.make.put(1)
    assert configured.deployed[0].config == msgspec.structs.replace(app.make.config, handler="app:make")
