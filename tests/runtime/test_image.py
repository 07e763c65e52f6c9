"""Images: resolved once, built once, shared, and clear about what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from treadle.model.deployment import ImageSpec, spec_digest
from treadle.model.errors import BuildFailed
from treadle.runtime.image import READY, Built, Images
from treadle.runtime.python import Python, installed, running_python

pytestmark = pytest.mark.process

OFFLINE = {"UV_OFFLINE": "1", "UV_NO_CACHE": "1"}


def run(python: Path, program: str) -> str:
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, env={}, check=True)
    return done.stdout.strip()


def version(built: Built) -> str:
    return run(built.python, "import six; print(six.__version__)")


def other_python() -> Python:
    """An interpreter of another minor version than ours, and new enough."""
    minor = sys.version_info.minor
    others = [p for p in installed() if int(p.version.split(".")[1]) not in range(11) and f"3.{minor}" != p.minor]
    if not others:
        pytest.skip("this machine has no other Python from 3.11")
    return others[0]


def ignore(_line: str) -> None:
    return


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path / "images")


def test_the_default_image_is_built_without_any_network(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in OFFLINE.items():
        monkeypatch.setenv(key, value)
    built = images.build(ImageSpec(), None, ignore)
    assert (built.cached, built.image.lock) == (False, "")
    assert built.image.python == ".".join(map(str, sys.version_info[:3]))
    assert run(built.python, "import treadle, msgspec, websockets, sys; print(sys.prefix)") == str(
        built.python.parent.parent
    )


def test_an_image_that_is_there_is_ready_in_well_under_a_second(images: Images) -> None:
    first = images.build(ImageSpec(), None, ignore)
    start = time.perf_counter()
    second = images.ensure(first.image, ignore)
    assert second.cached
    assert second.python == first.python
    assert time.perf_counter() - start < 0.2


def test_the_runner_layer_comes_after_the_images_own_packages(images: Images) -> None:
    python = images.build(ImageSpec(), None, ignore).python
    path = run(python, "import sys; print([p for p in sys.path if 'images' in p])")
    own, layer = msgspec.json.decode(path.replace("'", '"'))[:2]
    assert own.endswith("site-packages")
    assert "/runner-3." in layer


def test_an_image_with_a_package_has_it_and_is_found_the_second_time(images: Images) -> None:
    spec = ImageSpec(python_packages=("six",))
    lines: list[str] = []
    first = images.build(spec, None, lines.append)
    second = images.build(spec, None, ignore)
    assert (first.cached, second.cached) == (False, True)
    assert (first.image.id, first.image.spec_digest) == (second.image.id, spec_digest(spec))
    assert "--hash=sha256:" in first.image.lock
    assert [line.split(" in ")[0] for line in lines if not line.startswith("Prepared")] == [
        "Resolved 1 package", "Installing packages: six", "Installed 1 package", f" + six=={version(first)}",
    ]  # fmt: skip
    program = "import six, pathlib; print(any(pathlib.Path(six.__file__).parent.glob('__pycache__/six*.pyc')))"
    assert run(first.python, program) == "True"


def test_an_image_whose_python_the_machine_has_no_more_is_resolved_anew(images: Images) -> None:
    """A new version of the operating system must not end all deployments."""
    now = images.build(ImageSpec(), None, ignore).image
    before = msgspec.structs.replace(now, id="0" * 32, python=f"{now.python}99")
    assert images.build(ImageSpec(), before, ignore).image.id == now.id


def test_the_variables_of_an_image_count_when_its_packages_are_resolved(images: Images) -> None:
    """An index, for example, or that there is no network."""
    with pytest.raises(BuildFailed, match=r"^python_packages six could not be resolved: .*network"):
        images.build(ImageSpec(python_packages=("six",), env_vars=OFFLINE), None, ignore)


def test_packages_and_commands_are_run_in_the_order_given(images: Images) -> None:
    """A command finds the packages that were added before it, with all they need, and not those after it."""
    missing = "python -c 'import six' && exit 1; python -c 'import dateutil' && exit 1; true"
    between = "python -c 'import six, dateutil.parser'; python -c 'import typing_extensions' && exit 1; true"
    packages = ("python-dateutil<2.10", "typing-extensions")
    spec = ImageSpec(python_packages=packages, commands=(missing, between), installed=(0, 1))
    built = images.build(spec, None, ignore)
    assert run(built.python, "import dateutil, six, typing_extensions; print('all')") == "all"
    other = msgspec.structs.replace(spec, installed=())
    assert images.resolve(other, ignore).id != built.image.id


def test_a_resolved_image_is_built_from_its_lock_alone(images: Images, tmp_path: Path) -> None:
    image = images.build(ImageSpec(python_packages=("six<1.17",)), None, ignore).image
    built = Images(tmp_path / "elsewhere").build(image.spec, image, ignore)
    assert built.image == image
    assert run(built.python, "import six; print(six.__version__)") == "1.16.0"


def test_packages_that_would_break_the_runner_are_refused_by_name(images: Images) -> None:
    with pytest.raises(BuildFailed) as caught:
        images.build(ImageSpec(python_packages=("six", "msgspec<0.10")), None, ignore)
    assert caught.value.message == (
        "python_packages msgspec<0.10 could not be resolved: Because you require msgspec<0.10 and msgspec>=0.20, "
        "we can conclude that your requirements are unsatisfiable. "
        "Treadle itself needs msgspec>=0.20: its runner is in every image."
    )


def test_an_unknown_package_is_named(images: Images) -> None:
    spec = ImageSpec(python_packages=("six", "treadle-no-such-package"))
    lines: list[str] = []
    with pytest.raises(
        BuildFailed, match=r"^python_packages treadle-no-such-package could not be resolved: Because .*unsatisfiable\. Check"
    ):
        images.build(spec, None, lines.append)
    assert lines == [], "the reason is told once, in the error"


def test_an_unknown_python_is_named_with_those_that_are_there(images: Images) -> None:
    with pytest.raises(BuildFailed, match=r"Python 3\.99 is not on this machine; there is: .*3\.11"):
        images.build(ImageSpec(python_version="python3.99"), None, ignore)


def test_a_python_too_old_for_the_runner_is_refused_whether_it_is_there_or_not(images: Images) -> None:
    for wanted in ("python3.10", "3.9", "3.10.13"):
        with pytest.raises(BuildFailed, match=r"Python 3\.\S+ is too old: .* needs Python 3\.11 or newer"):
            images.build(ImageSpec(python_version=wanted), None, ignore)


def test_an_image_with_another_python_has_a_runner_that_loads(images: Images) -> None:
    python = other_python()
    built = images.build(ImageSpec(python_version=f"python{python.minor}"), None, ignore)
    assert built.image.python.startswith(f"{python.minor}.")
    program = "import sys, treadle.runner.template, treadle.runner.parent as p; print(sys.version.split()[0], p.__name__)"
    assert run(built.python, program) == f"{built.image.python} treadle.runner.parent"


def test_pyenvs_versions_are_found_though_its_shims_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "versions" / "mine" / "bin"
    folder.mkdir(parents=True)
    (folder / "python3").symlink_to(running_python().path)
    (tmp_path / "shims").mkdir()
    (tmp_path / "shims" / "python3.12").write_text(f"#!/bin/sh\ntouch {tmp_path}/asked; exit 127\n")
    (tmp_path / "shims" / "python3.12").chmod(0o755)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/shims")
    assert str(folder / "python3") in [python.path for python in installed()]
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (ImageSpec(base_image="debian:12"), r"base_image='debian:12' needs it\."),
        (ImageSpec(dockerfile="FROM debian:12"), r"a Dockerfile needs it\."),
        (ImageSpec(commands=("apt-get install -y jq",)), "'apt-get install -y jq' installs system packages"),
        (ImageSpec(commands=("true && sudo apt install jq",)), "installs system packages"),
        (ImageSpec(commands=("DEBIAN_FRONTEND=noninteractive apt-get update -q",)), "installs system packages"),
        (ImageSpec(commands=("(apk add jq)",)), "installs system packages"),
    ],
)
def test_what_needs_docker_is_refused_without_it_and_nothing_is_run(
    images: Images, spec: ImageSpec, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine itself is never changed; the error says what needs it, what is missing, and what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildFailed, match=f"needs Docker or Podman: .*{why}") as caught:
        images.build(spec, None, ignore)
    assert "Neither docker nor podman is installed. Install and start one" in str(caught.value)


def test_an_engine_that_does_not_run_is_told_in_its_own_words(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed is not enough."""
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon.' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildFailed, match=r"docker does not answer: Cannot connect to the Docker daemon\."):
        images.build(ImageSpec(base_image="debian:12"), None, ignore)


def test_a_command_that_only_names_an_installer_is_run(images: Images) -> None:
    """What counts is what is called."""
    images.build(ImageSpec(commands=("echo apt-get install x", "ls /etc | grep apt || true")), None, ignore)


def test_commands_run_in_order_inside_the_environment_with_its_variables(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREADLE_TOKEN", "secret")
    lines: list[str] = []
    commands = ("command -v python", 'echo "$COLOR" > "$VIRTUAL_ENV/color"', 'cat "$VIRTUAL_ENV/color"', "env")
    built = images.build(ImageSpec(commands=commands, env_vars={"COLOR": "red"}), None, lines.append)
    shown = [line for line in lines if not line.startswith("Running ")]
    assert shown[:2] == [str(built.python), "red"]
    assert not any(line.startswith("TREADLE_TOKEN") for line in lines)


def test_a_failing_command_is_named_and_leaves_nothing(images: Images, tmp_path: Path) -> None:
    command = "seq 9; echo oh >&2; exit 7"
    with pytest.raises(BuildFailed, match=f"The command '{command}' ended with exit code 7: 6 / 7 / 8 / 9 / oh\\. Try"):
        images.build(ImageSpec(commands=(command,)), None, ignore)
    assert [path.name for path in (tmp_path / "images").iterdir()] == [".locks"]


def test_different_commands_and_variables_make_different_images(images: Images) -> None:
    specs = [ImageSpec(), ImageSpec(commands=("true",)), ImageSpec(env_vars={"A": "1"})]
    assert len({images.resolve(spec, ignore).id for spec in specs}) == 3


def test_what_a_killed_build_left_is_built_anew(images: Images) -> None:
    built = images.build(ImageSpec(), None, ignore)
    environment = built.python.parent.parent
    (environment / READY).unlink()
    (environment / "half").touch()
    again = images.ensure(built.image, ignore)
    assert not again.cached
    assert not (environment / "half").exists()


def test_the_lock_outlives_a_killed_agent_for_as_long_as_its_command_runs(tmp_path: Path) -> None:
    """Otherwise the next agent would build beside a command that is still writing."""
    spec = ImageSpec(commands=('echo $$ > "$VIRTUAL_ENV/../pid.new"; mv "$VIRTUAL_ENV/../pid.new" '
                               '"$VIRTUAL_ENV/../pid"; exec sleep 600',))  # fmt: skip
    program = f"""
import msgspec
from pathlib import Path
from treadle.model.deployment import ImageSpec
from treadle.runtime.image import Images
spec = msgspec.json.decode({msgspec.json.encode(spec)!r}, type=ImageSpec)
Images(Path({str(tmp_path)!r})).build(spec, None, print)
"""
    agent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    pid_file = tmp_path / "pid"
    deadline = time.monotonic() + 30
    while not pid_file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    agent.kill()
    agent.wait()
    images = Images(tmp_path)
    image = images.resolve(spec, ignore)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(images.ensure, image, ignore)
        try:
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
        finally:
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
            images.stop()
        with pytest.raises(BuildFailed, match="interrupted"):
            waiting.result(timeout=10)


def test_a_stopped_builder_ends_the_build_in_progress(images: Images) -> None:
    lines: list[str] = []

    def hear(line: str) -> None:
        lines.append(line)
        if line == "up":
            images.stop()

    with pytest.raises(BuildFailed, match="interrupted"):
        images.build(ImageSpec(commands=("echo up; sleep 600",)), None, hear)
