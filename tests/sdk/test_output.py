"""Output: files of a running task; clear errors everywhere else."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image as Pictures

from sdk.peer import TOKEN, Peer
from treadle.model.errors import Conflict
from treadle.sdk.output import (
    Output,
    OutputCannotRunLocallyError,
    OutputNotFoundError,
    OutputNotSavedError,
    OutputPublicURLError,
    OutputSaveError,
    OutputTaskIdError,
)


@pytest.fixture
def task(peer: Peer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Peer:
    """This process as a container that runs the second attempt of task-1."""
    given = {"CONTAINER_ID": "c", "TASK_ID": "task-1", "TASK_ATTEMPT": "2"}
    for name, value in (given | {"TREADLE_URL": peer.url, "TREADLE_TOKEN": TOKEN, "TMPDIR": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)
    return peer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "thumb.png"
    path.write_bytes(b"picture")
    return path


def test_outside_a_container_every_way_in_says_so(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """The error says why and what to do, before anything is written or sent."""
    monkeypatch.delenv("CONTAINER_ID", raising=False)
    for make in (
        lambda: Output(path=file),
        lambda: Output.from_file(io.BytesIO(b"x")),
        lambda: Output.from_pil_image(Pictures.new("RGB", (1, 1))),
    ):
        with pytest.raises(OutputCannotRunLocallyError, match=r"does not run in a container.*\.put\(\)"):
            make()


def test_without_a_running_task_it_says_so(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """While a container loads its handler there is no task to save for."""
    monkeypatch.setenv("CONTAINER_ID", "c")
    monkeypatch.delenv("TASK_ID", raising=False)
    with pytest.raises(OutputTaskIdError, match="TASK_ID"):
        Output(path=file)


def test_a_missing_file_is_not_found(task: Peer) -> None:
    """Nothing at the path is told when the output is made."""
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        Output(path="no.png")


def test_a_file_is_saved_for_its_attempt(task: Peer, file: Path) -> None:
    """Bytes and base name reach the server with task and attempt; the id is set."""
    output = Output(path=file)
    assert output.save() is output
    assert output.id == "out-1"
    assert task.outputs == {"thumb.png": b"picture"}
    assert task.paths("PUT") == ["/v2/outputs?task_id=task-1&attempt=2&name=thumb.png"]


def test_an_empty_file_is_saved(task: Peer, file: Path) -> None:
    """Zero bytes are a file too."""
    file.write_bytes(b"")
    Output(path=str(file)).save()
    assert task.outputs == {"thumb.png": b""}


def test_a_directory_is_saved_as_a_zip(task: Peer, tmp_path: Path) -> None:
    """Paths in the zip are relative to the directory."""
    (tmp_path / "report/pages").mkdir(parents=True)
    (tmp_path / "report/index.html").write_text("index")
    (tmp_path / "report/pages/1.html").write_text("one")
    Output(path=tmp_path / "report").save()
    with zipfile.ZipFile(io.BytesIO(task.outputs["report.zip"])) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "index.html": b"index",
            "pages/1.html": b"one",
        }


def test_the_working_directory_has_a_name_too(task: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Output(path=".")` is named after the directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert Output(path=".").name == "here.zip"
    assert Output(path="..").name == f"{tmp_path.name}.zip"


@pytest.mark.parametrize(
    "handle",
    [io.BytesIO(b"content"), io.StringIO("content")],
    ids=["bytes", "text"],
)
@pytest.mark.parametrize("at_end", [False, True])
def test_an_open_file_is_saved_under_a_random_name(
    task: Peer, handle: io.BytesIO | io.StringIO, at_end: bool
) -> None:
    """Bytes or text, also when it was just written and stands at its end; no copy is left behind."""
    handle.seek(0, io.SEEK_END if at_end else io.SEEK_SET)
    output = Output.from_file(handle).save()
    assert task.outputs == {output.name: b"content"}
    assert len(output.name) == 36
    assert not output.path.parent.exists()


@pytest.mark.parametrize("kind", ["png", "jpg", "WEBP"])
def test_a_picture_is_saved_in_its_format(task: Peer, kind: str) -> None:
    """The file can be opened again and its name ends with the format."""
    output = Output.from_pil_image(Pictures.new("RGB", (4, 2)), format=kind).save()
    assert output.name.endswith(f".{kind.lower()}")
    assert Pictures.open(io.BytesIO(task.outputs[output.name])).size == (4, 2)


def test_before_saving_there_is_nothing_to_ask_for(task: Peer, file: Path) -> None:
    """stat, exists and public_url say to save first."""
    output = Output(path=file)
    for ask in (output.stat, output.exists, output.public_url):
        with pytest.raises(OutputNotSavedError, match=r"\.save\(\)"):
            ask()


def test_a_saved_output_answers(task: Peer, file: Path) -> None:
    """Size, existence and a URL that expires when asked."""
    output = Output(path=file).save()
    assert output.stat().size == 7
    assert output.stat().mtime == file.stat().st_mtime
    assert output.exists()
    assert output.public_url().endswith("/output/id/out-1?expires=3600")
    assert output.public_url(expires=5).endswith("expires=5")


def test_an_output_that_is_gone_is_told(task: Peer, file: Path) -> None:
    """When the server does not hold it any more, exists() is False and stat() raises."""
    output = Output(path=file).save()
    task.outputs.clear()
    assert not output.exists()
    with pytest.raises(OutputNotFoundError, match=r"thumb\.png"):
        output.stat()
    with pytest.raises(OutputPublicURLError, match="no such output"):
        output.public_url()


@pytest.mark.parametrize("expires", [0, -1, 1.5, "60"])
def test_an_expiry_must_be_whole_seconds(task: Peer, file: Path, expires: int) -> None:
    """A URL that never worked is not handed out."""
    with pytest.raises(OutputPublicURLError, match="whole seconds from 1"):
        Output(path=file).save().public_url(expires=expires)


def test_a_server_that_is_started_again_is_waited_for(task: Peer, file: Path) -> None:
    """What runs goes on without a server, so saving does too: tried again, from the first byte, until it is taken."""
    task.hang_up = 3
    Output(path=file).save()
    assert list(task.outputs.values()) == [b"picture"]


def test_a_server_that_stays_away_is_told(task: Peer, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the task is told, which fails as any other that raises."""
    monkeypatch.setattr("treadle.sdk.output.PATIENCE", 0.2)
    task.hang_up = 100
    with pytest.raises(OutputSaveError, match=r"not saved: No server answers"):
        Output(path=file).save()


def test_a_refusal_of_the_server_is_told(task: Peer, file: Path) -> None:
    """An attempt that is not the running one any more may not save; the reason is kept."""
    task.refuse = Conflict("The attempt is not running any more.")
    with pytest.raises(OutputSaveError, match=r"thumb\.png.*not running any more"):
        Output(path=file).save()


@pytest.mark.parametrize("name", ["a\nb.png", "back\\slash.png"])
def test_a_name_that_cannot_be_shown_is_refused(task: Peer, tmp_path: Path, name: str) -> None:
    """Control characters and backslashes do not get into URLs and headers."""
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(OutputSaveError, match="name"):
        Output(path=path)
