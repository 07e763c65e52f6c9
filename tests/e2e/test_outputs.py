"""Results of every kind, and files that tasks save: by path, file, image or folder, behind signed URLs."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from place import Place, until

pytestmark = pytest.mark.e2e

APP = """
    import io, json, os, pathlib, threading, time
    from treadle import Image, Output, task_queue

    def returns(source):
        return eval(source, {"float": float, "object": object})

    def saves(text=""):
        pathlib.Path("said.txt").write_text(text)
        output = Output(path="said.txt")
        before = output.id
        same = output.save() is output
        stat = output.stat()
        return {
            "before": before, "same": same, "id": output.id, "size": stat.size, "mode": stat.mode, "mtime": stat.mtime,
            "exists": output.exists(), "url": output.public_url(), "short": output.public_url(expires=1),
        }

    def several():
        for number in range(3):
            folder = pathlib.Path(f"part{number}")
            folder.mkdir(exist_ok=True)
            (folder / "same.bin").write_bytes(bytes([number]) * 10)
            Output(path=folder / "same.bin").save()

    def folder():
        inner = pathlib.Path("album", "inner")
        inner.mkdir(parents=True, exist_ok=True)
        pathlib.Path("album", "a.txt").write_text("a")
        (inner / "b.txt").write_text("b" * 1000)
        return Output(path="album").save().stat().size

    def files():
        from_text = Output.from_file(io.StringIO("text")).save()
        opened = open("bytes.bin", "w+b")
        opened.write(b"bytes")
        from_bytes = Output.from_file(opened).save()
        return [from_text.id, from_bytes.id]

    def large(size):
        with open("large.bin", "wb") as file:
            for _ in range(size):
                file.write(bytes(1024 * 1024))
        Output(path="large.bin").save()

    def misused():
        said = {}
        pathlib.Path("x.txt").write_text("x")
        output = Output(path="x.txt")
        cases = {
            "missing": lambda: Output(path="nothing.txt"), "stat": output.stat, "url": output.public_url,
            "exists": output.exists, "expires": lambda: output.save().public_url(expires=0),
        }
        for name, case in cases.items():
            try:
                case()
            except Exception as error:
                said[name] = f"{type(error).__name__}: {error}"
        return said

    def picture():
        from PIL import Image as Pictures
        picture = Pictures.new("RGB", (8, 4), "red")
        return [Output.from_pil_image(picture).save().id, Output.from_pil_image(picture, format="jpeg").save().id]

    def late(go):
        pathlib.Path("late.txt").write_text("late")
        output = Output(path="late.txt")

        def save():
            while not pathlib.Path(go).exists():
                time.sleep(0.01)
            try:
                output.save()
            except Exception as error:
                pathlib.Path(go).write_text(f"{type(error).__name__}: {error}")

        threading.Thread(target=save, daemon=True).start()

    @task_queue(retries=0, keep_warm_seconds=60, image=Image(python_packages=["pillow"]))
    def handler(do, **arguments):
        return globals()[do](**arguments)
"""


@pytest.fixture(scope="module")
def app(place: Place) -> Place:
    """A place with the queue `app`, whose image has Pillow."""
    place.deploy(APP, name="app")
    return place


def done(place: Place, do: str, **arguments: Any) -> dict[str, Any]:
    """A task that has ended well."""
    task = place.ended(place.submit("app", do=do, **arguments))
    assert task["status"] == "COMPLETE", task["failure_reason"] + task["attempts"][-1]["traceback"]
    return task


def bytes_at(place: Place, url: str) -> bytes:
    answer = place.request("GET", url, token="")
    assert answer.status_code == 200, answer.text
    return bytes(answer.content)


# results


@pytest.mark.parametrize(
    "source",
    ["None", "False", "True", "0", "0.0", "-0.0", "1.0", "''", "[]", "{}", "'text'", "2**70", "1e300", "'ß \\U0001f600 \\0'",
     "[None, {'a': [1, 2.5, False]}]", "(1, 2)", "'x' * 1_000_000"],
)  # fmt: skip
def test_any_json_result_is_in_the_task(app: Place, source: str) -> None:
    """Falsy results are results; numbers keep their type and size."""
    value = done(app, "returns", source=source)["result"]
    expected = json.loads(json.dumps(eval(source)))
    assert (repr(value), type(value)) == (repr(expected), type(expected))


@pytest.mark.parametrize(
    ("source", "told"),
    [("{1, 2}", "set"), ("object()", "object"), ("b'x'", "bytes"), ("float('nan')", "nan"), ("{(1,): 2}", "keys"),
     ("'\\ud800'", "surrogate")],
)  # fmt: skip
def test_a_result_that_is_not_json_fails_the_task_with_the_reason(app: Place, source: str, told: str) -> None:
    """The reason names the type and what may be returned; the task is never silently null."""
    task = app.ended(app.submit("app", do="returns", source=source))
    assert (task["status"], task["result"]) == ("FAILED", None)
    assert "is not JSON" in task["failure_reason"] and told in task["failure_reason"]
    assert "Output(path=" in task["failure_reason"]


# outputs


def test_a_saved_file_is_listed_with_a_url_that_works(app: Place) -> None:
    """Whoever has the URL gets the bytes, without a token; `save`, `stat`, `exists` and `id` say what they should."""
    task = done(app, "saves", text="hello")
    said = task["result"]
    (output,) = task["outputs"]
    assert (output["name"], output["expires_in"], output["size"]) == ("said.txt", 3600, 5)
    assert output["id"] == said["id"] and said["before"] == "" and said["same"] is True
    assert (said["size"], said["exists"], said["mode"] & 0o400) == (5, True, 0o400)
    assert abs(said["mtime"] - time.time()) < 120
    answer = app.request("GET", output["url"], token="")
    assert (answer.status_code, answer.text) == (200, "hello")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "said.txt" in answer.headers["content-disposition"]
    assert bytes_at(app, said["url"]) == b"hello"


def test_an_empty_file_can_be_saved(app: Place) -> None:
    """Zero bytes are listed and read."""
    (output,) = done(app, "saves", text="")["outputs"]
    assert (output["size"], bytes_at(app, output["url"])) == (0, b"")


def test_a_task_can_save_several_files_also_of_one_name(app: Place) -> None:
    """Each has an id and a URL of its own, in the order in which they were saved."""
    outputs = done(app, "several")["outputs"]
    assert [output["name"] for output in outputs] == ["same.bin"] * 3
    assert [bytes_at(app, output["url"]) for output in outputs] == [bytes([n]) * 10 for n in range(3)]


def test_a_folder_is_saved_as_a_zip(app: Place) -> None:
    """Paths in it are relative to the folder."""
    task = done(app, "folder")
    (output,) = task["outputs"]
    assert output["name"] == "album.zip" and output["size"] == task["result"]
    with zipfile.ZipFile(io.BytesIO(bytes_at(app, output["url"]))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "a.txt": b"a",
            "inner/b.txt": b"b" * 1000,
        }


def test_an_open_file_can_be_saved(app: Place) -> None:
    """Text or bytes, under a random name."""
    task = done(app, "files")
    assert [output["id"] for output in task["outputs"]] == task["result"]
    assert [bytes_at(app, output["url"]) for output in task["outputs"]] == [b"text", b"bytes"]
    assert all(re.fullmatch(r"[0-9a-f-]{36}", output["name"]) for output in task["outputs"])


def test_a_picture_can_be_saved(app: Place) -> None:
    """A PIL image is saved as PNG, or in the format named."""
    task = done(app, "picture")
    kinds = []
    for output in task["outputs"]:
        answer = app.request("GET", output["url"], token="")
        picture = Image.open(io.BytesIO(answer.content))
        kinds.append(
            (picture.format, picture.size, answer.headers["content-type"], output["name"].rpartition(".")[2])
        )
    assert kinds == [("PNG", (8, 4), "image/png", "png"), ("JPEG", (8, 4), "image/jpeg", "jpeg")]


def test_a_large_file_is_streamed(app: Place) -> None:
    """A file far over the limit of a request's body can be saved and read, by a task with little memory."""
    (output,) = done(app, "large", size=100)["outputs"]
    assert output["size"] == 100 * 1024 * 1024
    assert len(bytes_at(app, output["url"])) == output["size"]


def test_misuse_of_an_output_is_a_clear_error(app: Place) -> None:
    """A missing file, a question before `save()`, and a time that is none."""
    said = done(app, "misused")["result"]
    assert said.keys() == {"missing", "stat", "url", "exists", "expires"}
    assert said["missing"].startswith("FileNotFoundError: ") and "nothing.txt" in said["missing"]
    for name in ("stat", "url", "exists"):
        assert said[name].startswith("OutputNotSavedError: ") and ".save()" in said[name]
    assert said["expires"].startswith("OutputPublicURLError: ") and "expires=0" in said["expires"]


def test_outside_a_container_an_output_is_a_clear_error(app: Place) -> None:
    """It says that it belongs to a running task, and how to guard it."""
    script = app.script(
        """
        import io
        from treadle import Output
        from treadle.sdk.output import OutputCannotRunLocallyError

        for make in (lambda: Output(path=__file__), lambda: Output.from_file(io.BytesIO(b"x"))):
            try:
                make()
            except OutputCannotRunLocallyError as error:
                print(error)
        """
    )
    assert script.returncode == 0, script.stderr
    first, second = script.stdout.splitlines()
    assert first == second and "running task" in first and "is_remote()" in first


# URLs


def test_every_read_of_a_task_gives_fresh_urls(app: Place) -> None:
    """A URL's hour starts when the task is read."""
    task = done(app, "saves", text="x")
    expires = int(re.search(r"expires=(\d+)", task["outputs"][0]["url"])[1])  # type: ignore[index]
    assert 3590 <= expires - time.time() <= 3600


def test_an_altered_expired_or_unknown_url_is_refused(app: Place) -> None:
    """All three in the same words, so that nobody learns which outputs there are."""
    said = done(app, "saves", text="x")
    url = said["outputs"][0]["url"]
    assert bytes_at(app, url) == b"x"
    plain, expires, signature = re.fullmatch(r"(.*)\?expires=(\d+)&signature=(.+)", url).groups()  # type: ignore[union-attr]
    flipped = ("0" if signature[0] != "0" else "1") + signature[1:]
    output_id = said["outputs"][0]["id"]
    refused = {
        "later": f"{plain}?expires={int(expires) + 1}&signature={signature}",
        "flipped": f"{plain}?expires={expires}&signature={flipped}",
        "shorter": f"{plain}?expires={expires}&signature={signature[:-1]}",
        "unsigned": f"{plain}?expires={expires}",
        "bare": plain,
        "negative": f"{plain}?expires=-1&signature={signature}",
        "not ascii": f"{plain}?expires={expires}&signature=%C3%9F",
        "other output": url.replace(output_id, "00000000-0000-0000-0000-000000000000"),
        "no id": url.replace(output_id, "x"),
    }
    for name, address in refused.items():
        answer = app.request("GET", address, token="")
        assert (answer.status_code, answer.json().get("error")) == (400, "invalid output id"), (name, answer.text)
    short = said["result"]["short"]
    answer = until(
        lambda: (a := app.request("GET", short, token="")).status_code != 200 and a, what="the end of the URL"
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid output id")


def test_after_its_attempt_a_task_saves_nothing_more(app: Place, tmp_path: Path) -> None:
    """A thread left over by a finished task is refused; the task stays as it was."""
    go = tmp_path / "go"
    task = done(app, "late", go=str(go))
    go.touch()
    said = until(go.read_text, what="the refusal")
    assert said.startswith("OutputSaveError: ") and "does not run" in said
    assert app.task(task["id"])["outputs"] == []


def test_outside_the_attempt_nothing_can_be_saved(app: Place) -> None:
    """The route takes a container's own token only, and never one of a user."""
    task = done(app, "returns", source="1")
    answer = app.request(
        "PUT", "/v2/outputs", params={"task_id": task["id"], "attempt": 1, "name": "x"}, content=b"x"
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert app.task(task["id"])["outputs"] == []
