"""`treadle deploy`: what it prints, what it uploads, and the versions it makes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from place import Place

pytestmark = pytest.mark.e2e

ANSWER = """
    from treadle import task_queue

    @task_queue(authorized={authorized})
    def handler():
        return "{word}"
"""


def pasted(place: Place, printed: str) -> str:
    """What the printed curl answers when it is pasted into a shell."""
    command = printed[printed.index("curl ") :]
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(["sh", "-c", command], env=clean, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["task_id"])


def deploy(place: Place, word: str, name: str, *, authorized: bool = True) -> str:
    """Deploy a function that answers with a word; what the command printed."""
    place.app(ANSWER.format(word=word, authorized=authorized))
    done = place.cli("deploy", "app.py:handler", "--name", name)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_deploy_prints_each_step_and_a_curl_that_works(place: Place) -> None:
    """Image, files, version, then a command that submits a task when it is pasted."""
    printed = deploy(place, "pasted", "steps")
    steps = [line.removeprefix("=> ") for line in printed.splitlines() if line.startswith("=> ")]
    assert steps[0] in ("Building image", "Using cached image")
    assert steps[-4] == "Syncing files" and steps[-3].startswith("Files synced (")
    assert steps[-2:] == ["Deployed steps v1", "Invocation details"]
    task = place.ended(pasted(place, printed))
    assert (task["status"], task["result"]) == ("COMPLETE", "pasted")


def test_a_public_queue_is_called_without_a_token(place: Place) -> None:
    """The curl printed for `authorized=False` holds no token, and works."""
    printed = deploy(place, "open", "public-queue", authorized=False)
    assert "Authorization" not in printed and place.token not in printed
    assert place.ended(pasted(place, printed))["result"] == "open"


def test_a_deploy_with_json_prints_one_object(place: Place) -> None:
    """Stdout is the object alone; the steps, and what the app prints when it is imported, go to stderr."""
    place.app(
        "print('imported')\n" + "from treadle import task_queue\n\n@task_queue()\ndef handler(): pass\n", "loud.py"
    )
    done = place.cli("deploy", "loud.py:handler", "--name", "json-queue", "--json")
    made = json.loads(done.stdout)
    assert {"deployment_id", "deployment_name", "stub_id", "version", "invoke_url", "workspace_id"} <= made.keys()
    assert (made["deployment_name"], made["version"]) == ("json-queue", 1)
    assert made["invoke_url"] == f"{place.url}/taskqueue/json-queue/v1"
    assert "imported" in done.stderr and "=> Syncing files" in done.stderr


def test_a_redeploy_makes_the_next_version_and_the_old_one_stays_reachable(place: Place) -> None:
    """The name and `latest` lead to the newest version, `v1` still to the first."""
    assert "Deployed versions v1" in deploy(place, "one", "versions")
    assert "Deployed versions v2" in deploy(place, "two", "versions")
    results = {}
    for address in ("versions", "versions/latest", "versions/v1", "versions/v2"):
        task = place.ended(place.submit(address))
        results[address] = (task["result"], task["deployment"]["version"])
    assert results == {
        "versions": ("two", 2), "versions/latest": ("two", 2), "versions/v1": ("one", 1), "versions/v2": ("two", 2),
    }  # fmt: skip


def test_unchanged_source_is_not_uploaded_again(place: Place) -> None:
    """A second deploy of the same files says so and leaves the stored source alone; a change is uploaded."""
    deploy(place, "same", "sources")
    source = json.loads(place.cli("deploy", "app.py:handler", "--name", "sources", "--json").stdout)["source_id"]
    stored = next(place.data.rglob(f"{source}*")).stat()
    again = deploy(place, "same", "sources")
    assert "unchanged: not uploaded" in again
    assert next(place.data.rglob(f"{source}*")).stat() == stored
    assert "unchanged" not in deploy(place, "changed", "sources")


def test_an_image_is_built_once(place: Place) -> None:
    """The second deploy with an equal image uses it."""
    deploy(place, "first", "images")
    assert "=> Using cached image" in deploy(place, "second", "images")


@pytest.mark.parametrize("ignore", [".treadleignore", ".beamignore", ".gitignore"])
def test_ignored_files_are_not_in_the_container(
    place: Place, ignore: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patterns, folders and exceptions count as in git; the rest of the working directory is there."""
    files = {
        ignore: "*.log\nbig/\n!keep.log\n", "a.log": "", "keep.log": "", "data/b.log": "", "data/c.txt": "",
        "big/d.txt": "", "sibling.py": "WORD = 'sibling'\n", "nested/app.py": (
            "import pathlib, sibling\nfrom treadle import task_queue\n\n"
            "@task_queue()\ndef handler():\n"
            "    found = sorted(p.as_posix() for p in pathlib.Path().rglob('*') if p.is_file())\n"
            "    return [sibling.WORD, [p for p in found if '__pycache__' not in p]]\n"
        ),
    }  # fmt: skip
    monkeypatch.setattr(place, "code", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    name = f"ignore{ignore}"
    done = place.cli("deploy", "nested/app.py:handler", "--name", name)
    assert done.returncode == 0, done.stderr
    word, found = place.ended(place.submit(name))["result"]
    assert word == "sibling"
    assert set(found) - {ignore} == {"keep.log", "data/c.txt", "sibling.py", "nested/app.py"}


def test_a_file_named_like_a_module_of_python_does_no_harm(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies in the working directory, the command and the container still find their own modules."""
    for name in ("logging", "asyncio", "socket", "typing", "msgspec", "signal", "json"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not meant')\n")
    (tmp_path / "sibling.py").write_text("WORD = 'sibling'\n")
    monkeypatch.setattr(place, "code", tmp_path)
    place.deploy(
        """
        import sibling
        from treadle import task_queue

        @task_queue()
        def handler():
            return sibling.WORD
        """,
        name="shadows",
    )
    task = place.ended(place.submit("shadows"))
    assert (task["status"], task["result"]) == ("COMPLETE", "sibling")


def test_a_package_that_cannot_be_installed_is_named(place: Place) -> None:
    """A build that fails says which package, in one line after the build's own lines, and makes no version."""
    place.app(
        """
        from treadle import Image, task_queue

        @task_queue(image=Image(python_packages=["msgspec==0.0.0.1"]))
        def handler(): pass
        """,
        "broken.py",
    )
    done = place.cli("deploy", "broken.py:handler", "--name", "broken-image")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "msgspec==0.0.0.1" in done.stderr
    assert place.request("POST", "/taskqueue/broken-image", json={}).status_code == 404


def test_a_python_version_that_is_missing_is_an_error_and_never_another_one(place: Place) -> None:
    """An image that asks for a Python that cannot be had is refused with its version."""
    place.app(
        """
        from treadle import Image, task_queue

        @task_queue(image=Image(python_version="python3.99"))
        def handler(): pass
        """,
        "newest.py",
    )
    done = place.cli("deploy", "newest.py:handler", "--name", "newest")
    assert done.returncode != 0 and done.stderr.count("\n") == 1
    assert "3.99" in done.stderr
