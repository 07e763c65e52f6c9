"""Images on a machine: shared by many, changed by nobody, swept after a kill, pruned when nothing uses them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from treadle.model.deployment import ImageSpec
from treadle.runtime import bytecode, compiler
from treadle.runtime.image import Images
from treadle.runtime.seal import remove, seal, weigh

pytestmark = pytest.mark.process

BUILDER = """
import msgspec, sys
from pathlib import Path
from treadle.model.deployment import ImageSpec
from treadle.runtime.image import Images
spec = msgspec.json.decode(sys.argv[2], type=ImageSpec)
built = Images(Path(sys.argv[1])).build(spec, None, print)
print("cached" if built.cached else "built")
"""


def ignore(_line: str) -> None:
    return


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def builder(root: Path, spec: ImageSpec) -> subprocess.Popen[str]:
    """A process that builds an image and prints its log, then whether it built it or found it."""
    argv = [sys.executable, "-u", "-c", BUILDER, str(root), msgspec.json.encode(spec).decode()]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    made = Images(tmp_path / "images")
    yield made
    made.stop()


@pytest.fixture
def environment(images: Images, tmp_path: Path) -> Path:
    """Of a built image without packages."""
    return tmp_path / "images" / images.build(ImageSpec(), None, ignore).image.id


# shared


def test_four_processes_at_once_build_once_and_three_say_that_they_wait(tmp_path: Path) -> None:
    """One makes the image; the others say what they wait for and find it ready."""
    here = 'here="$VIRTUAL_ENV/.."'
    spec = ImageSpec(commands=(f'{here}; echo built >> "$here/count"; until [ -e "$here/go" ]; do sleep 0.05; done',))
    builders = [builder(tmp_path, spec) for _ in range(4)]
    lines: list[list[str]] = [[] for _ in builders]
    for told, each in zip(lines, builders, strict=True):  # all are at work or say that they wait
        assert each.stdout is not None
        told.append(each.stdout.readline())
    (tmp_path / "go").touch()
    for told, each in zip(lines, builders, strict=True):
        told.extend(each.communicate(timeout=60)[0].splitlines())
    assert (tmp_path / "count").read_text() == "built\n"
    assert sorted(told[-1] for told in lines) == ["built", "cached", "cached", "cached"]
    waited = [told for told in lines if "This image is being built by another: waiting for it\n" in told]
    assert [told[-1] for told in waited] == ["cached"] * 3


def test_nobody_may_write_to_what_containers_share(environment: Path) -> None:
    """Neither to an image nor to the runner's layer: no file, no folder."""
    (layer,) = environment.parent.glob("runner-*")
    for root in (environment, layer):
        paths = [path for path in (root, *root.rglob("*")) if not path.is_symlink()]
        assert len(paths) > 10
        assert [path for path in paths if path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)] == []


@pytest.mark.skipif(os.getuid() == 0 and not shutil.which("setpriv"), reason="root without setpriv may write anywhere")
def test_a_process_without_privileges_cannot_change_an_image(environment: Path) -> None:
    """The owner neither adds, nor changes, nor removes a file."""
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    folder = environment / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (file, *_) = folder.glob("*.pth")
    for attempt in (f"echo x > {folder}/new.py", f"echo x >> {file}", f"rm -f {file}"):
        done = subprocess.run([*plain, "sh", "-c", attempt], capture_output=True, text=True, check=False)
        assert done.returncode != 0 and "ermission denied" in done.stderr, attempt


def test_the_layer_shares_no_file_with_what_runs_the_agent(environment: Path) -> None:
    """A container that could write to it would write into the agent."""
    (layer,) = environment.parent.glob("runner-*")
    assert {path.stat().st_nlink for path in layer.rglob("*") if path.is_file()} == {1}


def test_a_newer_treadle_is_attached_to_a_sealed_image(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image stays; only the runner's layer on its path is another, and the folder is sealed again."""
    monkeypatch.setattr("treadle.runtime.layer.layer_name", lambda python: f"runner-{python.minor}-newer")
    images = Images(environment.parent)
    built = images.build(ImageSpec(), None, ignore)
    program = "import treadle; print(treadle.__file__)"
    done = subprocess.run([built.python, "-c", program], capture_output=True, text=True, env={}, check=True)
    assert "-newer/treadle/" in done.stdout
    (path,) = environment.glob("lib/*/site-packages/_treadle.pth")
    assert (built.cached, path.parent.stat().st_mode & 0o777) == (True, 0o555)


# bytecode


def test_a_large_image_is_ready_before_its_bytecode_which_comes_by_itself(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes in the background, and the image is as read-only as before."""
    monkeypatch.setattr(bytecode, "SMALL", 0)
    lines: list[str] = []
    built = images.build(ImageSpec(python_packages=("six",)), None, lines.append)
    assert "modules are compiled in the background" in lines[-1]
    environment = built.python.parent.parent
    until(lambda: not (environment / bytecode.PENDING).exists())
    (compiled,) = environment.glob("lib/*/site-packages/__pycache__/six.*.pyc")
    assert [path.stat().st_mode & 0o222 for path in (environment, compiled, compiled.parent)] == [0, 0, 0]


def test_bytecode_that_was_not_finished_is_finished_after_a_restart(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a large image outlives its agent."""
    (environment / bytecode.PENDING).touch()
    images = Images(environment.parent)
    assert images.shelf.sweep() == []
    until(lambda: not (environment / bytecode.PENDING).exists())
    images.stop()


def test_what_is_compiled_in_the_background_yields_to_all_else(tmp_path: Path) -> None:
    """It has the lowest priority; a module that does not compile does no harm."""
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("x = (\n")
    seal(tmp_path)
    program = f"""
import os, sys; sys.path.insert(0, {str(Path(compiler.__file__).parent)!r})
import compiler; from pathlib import Path
compiler.compile_slowly(Path({str(tmp_path)!r})); print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "19 True\n"
    assert len(list(tmp_path.glob("__pycache__/good.*.pyc"))) == 1


# swept


def test_after_kill_9_the_next_start_ends_the_command_and_removes_the_rest(tmp_path: Path) -> None:
    """The half image goes, and with it what its build had started; what is ready stays."""
    ready = Images(tmp_path).build(ImageSpec(), None, ignore).image.id
    note = 'echo $$ > "$VIRTUAL_ENV/pid.new"; mv "$VIRTUAL_ENV/pid.new" "$VIRTUAL_ENV/pid"'
    killed = builder(tmp_path, ImageSpec(commands=(f"{note}; exec sleep 600",)))
    until(lambda: list(tmp_path.glob("*/pid")))
    (noted,) = tmp_path.glob("*/pid")
    command = psutil.Process(int(noted.read_text()))
    with killed:
        killed.kill()
    (tmp_path / ".new-runner-3.11-half").mkdir()
    images = Images(tmp_path)
    assert sorted(images.shelf.sweep()) == sorted([noted.parent.name, ".new-runner-3.11-half"])
    command.wait(10)
    assert [here.id for here in images.shelf.images()] == [ready]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("runner-")) == [".locks", ready]


def test_a_sweep_leaves_a_build_alone_that_goes_on(tmp_path: Path) -> None:
    """Another agent's build of the same folder is no leftover."""
    spec = ImageSpec(commands=('touch "$VIRTUAL_ENV/up"; until [ -e "$VIRTUAL_ENV/../go" ]; do sleep 0.05; done',))
    building = builder(tmp_path, spec)
    until(lambda: list(tmp_path.glob("*/up")))
    assert Images(tmp_path).shelf.sweep() == []
    (tmp_path / "go").touch()
    assert building.communicate(timeout=60)[0].endswith("built\n")


# pruned


def test_images_are_told_with_what_they_are_and_take(images: Images) -> None:
    """The last used first; files that something else links to are not freed with them."""
    plain = images.build(ImageSpec(), None, ignore).image
    with_six = images.build(ImageSpec(python_packages=("six",)), None, ignore).image
    first, second = images.shelf.images()
    assert (first.id, first.packages, first.python) == (with_six.id, ("six",), plain.python)
    assert second.id == plain.id
    assert first.size > second.size > 0
    assert 0 < first.freed <= first.size and second.freed == second.size
    images.ensure(plain, ignore)
    assert [here.id for here in images.shelf.images()] == [plain.id, with_six.id]


def test_pruning_removes_all_but_what_is_kept_or_was_just_used(images: Images, tmp_path: Path) -> None:
    """A dry run removes nothing; an image that is asked for again is built again."""
    kept, gone, used = (
        images.build(ImageSpec(env_vars={"N": name}), None, ignore).image for name in ("kept", "gone", "used")
    )
    now = time.time()
    images.ensure(used, ignore)
    for dry_run in (True, False):
        assert [here.id for here in images.shelf.prune([kept.id], now, dry_run=dry_run)] == [gone.id]
    assert sorted(here.id for here in images.shelf.images()) == sorted([kept.id, used.id])
    assert not (tmp_path / "images" / gone.id).exists()
    assert not images.ensure(gone, ignore).cached


def test_an_image_that_is_being_built_is_not_pruned(tmp_path: Path) -> None:
    """Nor is one that is being attached: whoever holds its lock goes first."""
    images = Images(tmp_path)
    image = images.build(ImageSpec(), None, ignore).image
    with images._locks.hold(image.id, "", ignore):
        assert images.shelf.prune([], time.time(), dry_run=False) == []


def test_layers_that_no_image_has_any_more_are_pruned(images: Images, tmp_path: Path) -> None:
    """Those of earlier versions of Treadle; the one in use stays."""
    image = images.build(ImageSpec(), None, ignore).image
    old = tmp_path / "images" / "runner-3.11-old"
    old.mkdir()
    (old / "file").write_text("x" * 5000)
    removed = images.shelf.prune([image.id], time.time(), dry_run=False)
    assert [here.id for here in removed] == [old.name]
    assert removed[0].freed >= 5000 and not old.exists()


def test_what_is_removed_with_a_folder_is_what_nothing_else_links_to(tmp_path: Path) -> None:
    """A file with two names inside counts once; one with a name outside is not freed."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "own").write_bytes(b"x" * 100_000)
    os.link(folder / "own", folder / "again")
    (tmp_path / "outside").write_bytes(b"x" * 200_000)
    os.link(tmp_path / "outside", folder / "shared")
    seal(folder)
    weight = weigh(folder)
    assert 300_000 <= weight.size < 330_000
    assert 100_000 <= weight.own < 130_000
    remove(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    with contextlib.suppress(FileNotFoundError):
        remove(folder)  # once more does no harm


def test_a_command_that_was_killed_says_by_what(images: Images) -> None:
    """Out of memory while compiling, for example."""
    command = f"kill -{int(signal.SIGKILL)} $$"
    with pytest.raises(Exception, match="was killed by signal 9"):
        images.build(ImageSpec(commands=(command,)), None, ignore)
