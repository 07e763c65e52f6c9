"""What children take on that was declared for their container, and the runner itself does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from treadle.model.deployment import ImageSpec
from treadle.model.wire import START, Surroundings
from treadle.runner.inside import obeyed
from treadle.runtime.image import Built, Images
from treadle.runtime.seal import opened

from .running import Runner

pytestmark = pytest.mark.process

TELLS = """
    import os, sys, sysconfig

    def handler(name):
        import msgspec
        told = {"env": os.environ.get(name), "hash": hash("treadle"), "msgspec": msgspec.__file__, "cwd": os.getcwd()}
        told |= {"executable": sys.executable, "prefix": sys.prefix, "scheme": sysconfig.get_path("purelib")}
        return told | {"path": sys.path, "flags": [sys.flags.isolated, sys.flags.no_site, sys.flags.safe_path]}
"""
ENV = {**START, "PATH": os.defpath}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """An image with nothing but the interpreter."""
    return Images(tmp_path_factory.mktemp("images")).build(ImageSpec(), None, lambda _line: None)


def enclosed(runner: Runner, built: Built, **env: str) -> Runner:
    """A runner as the agent starts it for a container of this image."""
    runner.python, runner.env = [str(built.runner), "-P"], dict(START)
    runner.around = Surroundings({**ENV, **env}, str(built.python))
    return runner


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "LD_PRELOAD", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LC_ALL"])
def test_what_is_read_at_the_start_of_a_program_asks_for_a_start(name: str) -> None:
    """Variables of the interpreter, the loader, the allocator and the locale."""
    assert obeyed(ENV | {"A": "b"})
    assert not obeyed(ENV | {name: "1"})


def test_a_fork_is_as_if_the_images_interpreter_had_been_started(runner: Runner, built: Built) -> None:
    """Program, prefix, path and flags; nothing of the environment that the runner was started from is left."""
    told = enclosed(runner, built, MINE="é=1").start(TELLS).value("t1", name="MINE")
    environment = built.python.parent.parent
    program = "import sys, sysconfig; print(*sys.path[1:], sep='\\n')"
    plain = subprocess.run([built.python, "-c", program], capture_output=True, text=True, env=ENV, check=True)
    assert (told["env"], told["executable"], told["prefix"]) == ("é=1", str(built.python), str(environment))
    assert told["scheme"].startswith(f"{environment}/lib/")
    assert told["path"] == [str(runner.code), *plain.stdout.split()]
    assert told["flags"] == [0, 0, True]


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_start_is_made_where_a_variable_asks_for_one(runner: Runner, built: Built, checkpoint: bool) -> None:
    """Also of the process that workers are copies of."""
    config = {"checkpoint_enabled": checkpoint, "workers": 2}
    link = enclosed(runner, built, PYTHONHASHSEED="7").start(TELLS, config=config)
    argv = [sys.executable, "-c", "print(hash('treadle'))"]
    known = subprocess.run(argv, env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True)
    for task in ("t1", "t2"):
        told = link.value(task, name="PYTHONHASHSEED")
        assert (told["env"], told["hash"], told["cwd"]) == ("7", int(known.stdout), str(runner.code))


def test_an_image_has_its_own_version_of_what_the_runner_has_brought(runner: Runner, tmp_path: Path) -> None:
    """Here the same version, in another place."""
    built = Images(tmp_path / "images").build(ImageSpec(), None, lambda _line: None)
    (packages,) = built.python.parent.parent.glob("lib/python3*/site-packages")
    with opened(packages):
        shutil.copytree(Path(msgspec.__file__).parent, packages / "msgspec")
    told = enclosed(runner, built).start(TELLS).value("t1", name="")
    assert Path(told["msgspec"]).is_relative_to(packages)


def test_the_runner_itself_takes_nothing_on(runner: Runner, built: Built) -> None:
    """Neither variables, of which PYTHONPATH would have it run code, nor the source as its working directory."""
    link = enclosed(runner, built, PYTHONPATH=".", MINE="secret").start(TELLS)
    assert link.value("t1", name="MINE")["env"] == "secret"
    for process in (runner.process.pid, next(one.pid for one in runner.tree())):
        assert b"secret" not in Path(f"/proc/{process}/environ").read_bytes()
        assert Path(f"/proc/{process}/cwd").readlink() != runner.code


def test_another_interpreter_than_the_runners_is_refused(runner: Runner, built: Built) -> None:
    """What was loaded by one cannot go on as another."""
    enclosed(runner, built)
    runner.around = Surroundings(ENV, "/usr/bin/env")
    runner.launch(TELLS)
    runner.server.accept()
    runner.wait()
    assert "/usr/bin/env is not the interpreter that the runner was started with" in runner.log()
