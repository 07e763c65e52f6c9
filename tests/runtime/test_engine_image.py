"""Images of Docker or Podman, made by a real engine from a real base image (tests/engine.sh up)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runtime.conftest import BASE, engine
from treadle.model.deployment import ImageSpec
from treadle.model.errors import BuildFailed
from treadle.runtime.commands import Commands
from treadle.runtime.docker import LAYER
from treadle.runtime.engine import Engine
from treadle.runtime.engine_image import BUILD_LABEL
from treadle.runtime.image import Built, Images

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


def ignore(_line: str) -> None:
    return


@pytest.fixture
def docker() -> Engine:
    return engine()


@pytest.fixture
def images(docker: Engine, tmp_path: Path) -> Iterator[Images]:
    made = Images(tmp_path / "images")
    yield made
    made.stop()
    for here in made.shelf.images():
        docker.ask("rmi", "--force", f"treadle/{here.id}")


def run(docker: Engine, built: Built, program: str) -> str:
    """What a program prints in the image, with the runner's layer where a container has it."""
    mount = f"type=bind,source={built.layer},target={LAYER},readonly"
    return docker.run(
        "run", "--rm", "--read-only", "--network", "none", "--mount", mount, "--entrypoint", str(built.python),
        built.engine_image, "-c", program,
    )  # fmt: skip


def test_an_image_has_its_base_its_packages_and_the_runner(docker: Engine, images: Images) -> None:
    """Python is the base image's, packages are locked, and the second build finds it."""
    spec = ImageSpec(base_image=BASE, python_packages=("six",), commands=("echo made > /made",), env_vars={"A": "1"})
    lines: list[str] = []
    built = images.build(spec, None, lines.append)
    assert not built.cached and built.image.python.startswith("3.11.")
    assert "--hash=sha256:" in built.image.lock
    assert "Installing packages: six" in lines and "Running echo made > /made" in lines
    program = "import six, treadle.runner.parent, sys; print(open('/made').read().strip(), sys.version.split()[0])"
    assert run(docker, built, program) == f"made {built.image.python}"
    again = images.build(spec, built.image, ignore)
    assert (again.cached, again.image, again.engine_image) == (True, built.image, built.engine_image)


def test_system_packages_come_before_what_needs_them(docker: Engine, images: Images) -> None:
    """Commands and packages keep their order here too; apt works, and changes the image alone."""
    commands = ("apt-get install --version >/dev/null && touch /first", "test -e /first && python -c 'import six'")
    spec = ImageSpec(base_image=BASE, python_packages=("six",), commands=commands, installed=(0, 1))
    built = images.build(spec, None, ignore)
    assert run(docker, built, "import os; print(os.path.exists('/first'))") == "True"
    assert not Path("/first").exists()


def test_a_dockerfile_with_its_context_is_a_base(docker: Engine, tmp_path: Path) -> None:
    """Its lines are in the log; files are copied from the context."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "greeting").write_text("hello")
    images = Images(tmp_path / "images", lambda context_id: context if context_id == "c1" else tmp_path)
    spec = ImageSpec(dockerfile=f"FROM {BASE}\nCOPY greeting /greeting\nRUN echo from the Dockerfile\n", context_id="c1")
    lines: list[str] = []
    built = images.build(spec, None, lines.append)
    assert "from the Dockerfile" in lines
    assert run(docker, built, "print(open('/greeting').read())") == "hello"
    (here,) = images.shelf.images()
    assert here.base_image == "a Dockerfile"
    docker.ask("rmi", "--force", built.engine_image)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"commands": ("echo oh; exit 7",)}, r"The command 'echo oh; exit 7' ended with exit code 7: oh\."),
        ({"python_packages": ("treadle-no-such-package",)}, "python_packages treadle-no-such-package could not be"),
        ({"python_version": "3.99"}, r"has Python 3\.11\.\d+, not 3\.99"),
        ({"base_image": "treadle-test/none:1"}, "The base image 'treadle-test/none:1' could not be pulled"),
    ],
)
def test_a_build_that_fails_names_what_is_wrong_and_leaves_nothing(
    docker: Engine, images: Images, tmp_path: Path, fields: dict[str, object], said: str
) -> None:
    """No image, no container, no folder."""
    spec = ImageSpec(**{"base_image": BASE, **fields})  # type: ignore[arg-type]
    with pytest.raises(BuildFailed, match=said):
        images.build(spec, None, ignore)
    ours = f"label={BUILD_LABEL}={Commands().mark}"  # other tests build with the same engine
    assert docker.run("ps", "--all", "--quiet", "--filter", ours) == ""
    assert [path.name for path in (tmp_path / "images").iterdir()] == [".locks"]


def test_a_base_image_without_python_is_refused(docker: Engine, images: Images, tmp_path: Path) -> None:
    """The runner needs one; the error says what to do."""
    dockerfile = f"FROM {BASE}\nRUN rm /usr/bin/python3*\n"
    with pytest.raises(BuildFailed, match="has no Python, which Treadle's runner needs") as caught:
        images.build(ImageSpec(dockerfile=dockerfile), None, ignore)
    assert "install one by a command before the packages" in caught.value.advice


def test_images_of_an_engine_are_weighed_and_pruned(docker: Engine, images: Images) -> None:
    """What is freed leaves out what the base image holds."""
    spec = ImageSpec(base_image=BASE, commands=("head -c 5000000 /dev/urandom > /big",))
    built = images.build(spec, None, ignore)
    (here,) = images.shelf.images()
    assert here.base_image == BASE and here.size > 100_000_000
    assert 5_000_000 <= here.freed < 40_000_000
    assert built.image.id in [one.id for one in images.shelf.prune([], time.time(), dry_run=False)]
    assert docker.ask("image", "inspect", built.engine_image) == ""
    rebuilt = images.ensure(built.image, ignore)
    assert (rebuilt.cached, rebuilt.image) == (False, built.image)


def test_a_build_whose_agent_was_killed_is_ended_at_the_next_start(docker: Engine, images: Images, tmp_path: Path) -> None:
    """Its container is removed; one of a living agent is left alone, and so is one that runs in what was made."""
    dead = subprocess.Popen(["sleep", "600"])
    dead.kill()
    dead.wait()
    mine = psutil.Process().pid
    alive = f"{mine}:{images._commands.mark.partition(':')[2]}"
    gone, living, task = (f"{prefix}-{dead.pid}" for prefix in ("treadle-build-dead", "treadle-build-alive", "taskqueue"))
    for name, mark in ((gone, f"{dead.pid}:gone"), (living, alive), (task, f"{dead.pid}:gone")):
        docker.run("create", "--name", name, "--label", f"{BUILD_LABEL}={mark}", BASE, "true")
    (tmp_path / "images" / f".engine-{dead.pid}-x").mkdir()
    images.shelf.sweep()
    left = docker.run("ps", "--all", "--format", "{{.Names}}", "--filter", f"label={BUILD_LABEL}").splitlines()
    docker.ask("rm", "--force", living, task)
    assert {gone, living, task} & {*left} == {living, task}
    assert not (tmp_path / "images" / f".engine-{dead.pid}-x").exists()
