"""Images through the product: one build for many deploys, nothing half made, a log that is seen live, list and prune."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from place import TREADLE, Place, until

pytestmark = pytest.mark.e2e

APP = """
    from treadle import Image, task_queue

    @task_queue(image=Image(python_packages={packages}, commands={commands}))
    def handler():
        import {module}
        return {module}.__file__
"""


def app(place: Place, *, packages: tuple[str, ...] = (), commands: tuple[str, ...] = (), module: str = "os") -> None:
    place.app(APP.format(packages=list(packages), commands=list(commands), module=module))


def environments(place: Place) -> list[Path]:
    """Image folders, whole or not."""
    found = (place.data / "images").glob("*")
    return [path for path in found if path.is_dir() and not path.name.startswith((".", "runner-"))]


@pytest.fixture
def deploying(place: Place) -> Iterator[list[subprocess.Popen[str]]]:
    """Deploys under way; those that are left are ended."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for each in started:
        each.kill()
        each.communicate()


def start_deploy(place: Place, name: str) -> subprocess.Popen[str]:
    argv = [*TREADLE, "deploy", "app.py:handler", "--name", name]
    env = place.environ | {"TREADLE_URL": place.url}  # it shall start no server where this one is killed
    return subprocess.Popen(
        argv, cwd=place.code, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )


def lines_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    """What a process prints, up to a line."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if wanted in line:
            return lines
    raise AssertionError(f"{wanted!r} was not printed: {lines}")


def test_four_deploys_at_once_build_one_image(place: Place, deploying: list[subprocess.Popen[str]]) -> None:
    """One shows the log of the build as it happens; the others say what they wait for."""
    wait = 'echo working; echo x >> "$VIRTUAL_ENV/../count"; until [ -e "$VIRTUAL_ENV/../go" ]; do sleep 0.05; done'
    app(place, commands=(wait,))
    deploying += [start_deploy(place, f"at-once-{number}") for number in range(4)]
    heard = [lines_until(each, "   ") for each in deploying]
    assert sorted(lines[-1].strip()[:12] for lines in heard) == ["Running echo"] + ["This image i"] * 3
    (place.data / "images" / "go").touch()
    for each in deploying:
        lines_until(each, "Deployed at-once")
        each.communicate(timeout=30)
    assert (place.data / "images" / "count").read_text() == "x\n"


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ("Image(python_packages=['six', 'treadle-no-such-package'])", "treadle-no-such-package"),
        ("Image(python_version='3.99')", "3.99"),
        ("Image(python_packages=['six'], commands=['echo once', 'echo twice; exit 4'])", "exit code 4: twice"),
        ("Image(base_image='debian:12')", "debian:12"),
    ],
)
def test_a_build_that_fails_is_told_and_leaves_nothing(place: Place, image: str, named: str) -> None:
    """No version, no folder; the one line of the error names what is wrong."""
    before = environments(place)
    app(place)
    text = (place.code / "app.py").read_text()
    (place.code / "app.py").write_text(re.sub(r"image=Image\(.*\)\)", f"image={image})", text))
    done = place.cli("deploy", "app.py:handler", "--name", "half-made")
    assert done.returncode == 1
    assert named in done.stderr and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert environments(place) == before
    with sqlite3.connect(f"file:{place.data / 'treadle.db'}?mode=ro", uri=True) as database:
        assert database.execute("SELECT count(*) FROM deployment WHERE name = 'half-made'").fetchone() == (0,)


def test_put_shows_the_log_of_the_build_and_the_task_has_the_package(place: Place) -> None:
    """Each line as in a deploy; the second time the image is there."""
    app(place, packages=("six",), commands=("echo from the command",), module="six")
    script = "from app import handler\nprint(handler.put().result(wait=True, timeout=60))\n"
    first, second = place.script(script), place.script(script)
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0] == "=> Building image" and "   from the command" in lines and "   Installing packages: six" in lines
    assert lines[-1].startswith(str(place.data / "images"))
    assert second.stdout.splitlines()[0] == "=> Using cached image"


def test_images_are_listed_and_those_that_nothing_uses_are_pruned(own_place: Place) -> None:
    """An image that only `Image.build()` made goes; that of a deployment stays; a dry run removes nothing."""
    place = own_place.up()
    app(place, packages=("six",), module="six")
    assert place.cli("deploy", "app.py:handler", "--name", "used").returncode == 0
    built = place.script("from treadle import Image\nprint(Image(env_vars={'A': '1'}).build())\n")
    unused = built.stdout.splitlines()[-1]
    listed = json.loads(place.cli("image", "list", "--json").stdout)
    assert [(one["packages"], one["used_by"]) for one in listed] == [([], []), (["six"], ["used v1"])]
    assert listed[0]["id"] == unused and listed[0]["size"] > 0
    assert json.loads(place.cli("image", "prune", "--dry-run", "--json").stdout)["removed"][0]["id"] == unused
    assert len(environments(place)) == 2
    assert "1 image would be removed" in place.cli("image", "prune").stderr
    done = place.cli("image", "prune", "--yes")
    assert f"{unused[:12]}" in done.stdout and "1 image removed" in done.stdout
    assert [path.name for path in environments(place)] == [listed[1]["id"]]
    assert place.ended(place.submit("used"))["status"] == "COMPLETE"


def test_a_terminal_is_asked_before_anything_is_removed(own_place: Place) -> None:
    """No leaves all as it is."""
    place = own_place.up()
    place.script("from treadle import Image\nImage().build()\n")
    for answer, left in (("n", 1), ("y", 0)):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*TREADLE, "image", "prune"], env=place.environ, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True
        ) as asking:
            os.write(ours, f"{answer}\n".encode())
            asking.communicate(timeout=30)
        os.close(theirs)
        os.close(ours)
        assert (asking.returncode, len(environments(place))) == (left, left)


def test_kill_9_in_the_middle_of_a_build_leaves_nothing_after_the_next_start(own_place: Place) -> None:
    """What the build had started is ended, its folder removed, and the next deploy builds it whole."""
    place = own_place.up()
    app(place, commands=('echo $$ > "$VIRTUAL_ENV/up"; [ -e "$VIRTUAL_ENV/../go" ] || exec sleep 600',))
    deploying = start_deploy(place, "killed")
    until(lambda: any((folder / "up").exists() for folder in environments(place)), what="the build")
    place.kill9()
    deploying.communicate(timeout=30)
    assert deploying.returncode == 1
    place.up()
    until(lambda: environments(place) == [], what="the sweep")
    (place.data / "images" / "go").touch()
    done = place.cli("deploy", "app.py:handler", "--name", "killed")
    assert done.returncode == 0 and "Deployed killed v1" in done.stdout
    assert len(environments(place)) == 1


def test_an_image_that_was_pruned_is_built_again_when_its_task_comes(own_place: Place) -> None:
    """From the stored lock, without a deploy."""
    place = own_place.up()
    app(place, packages=("six<1.17",), module="six")
    place.cli("deploy", "app.py:handler", "--name", "again")
    assert place.cli("image", "prune", "--yes").returncode == 0
    (environment,) = environments(place)
    subprocess.run(["rm", "-rf", str(environment)], check=True)
    assert place.ended(place.submit("again"), 60)["result"].startswith(str(environment))


def test_the_readers_of_a_script_see_the_time_pass_on_a_terminal(place: Place) -> None:
    """A step that takes longer than a moment shows that it goes on."""
    app(place, commands=("sleep 2",))
    command = f"{TREADLE[0]} deploy app.py:handler --name slowly"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], cwd=place.code, env=place.environ | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert re.search(r"Preparing the image \(1 s\)", done.stdout)
    assert re.search(r"=> Image ready \(\d+ s\)", done.stdout)
