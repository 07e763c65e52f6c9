"""Image: what the user declares, checked as it is declared, becomes the spec that is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdk.peer import Peer
from treadle.model.deployment import ImageSpec
from treadle.model.errors import BuildFailed, InvalidOption
from treadle.sdk.image import Image
from treadle.sdk.options import PythonVersion


def test_an_image_without_options_is_the_default() -> None:
    """`Image()` is any Python 3 without packages."""
    assert Image().spec == ImageSpec()


def test_every_option_reaches_the_spec() -> None:
    """Constructor parameters are Beam's."""
    image = Image("python3.12", ["numpy", "pillow>=12"], ["echo hi"], "docker.io/python:3.12", {"A": "b=c"})
    assert image.spec == ImageSpec(
        python_version="python3.12",
        python_packages=("numpy", "pillow>=12"),
        commands=("echo hi",),
        env_vars={"A": "b=c"},
        base_image="docker.io/python:3.12",
    )


def test_methods_add_in_order_and_chain() -> None:
    """Packages and commands keep the order in which they were given."""
    image = (
        Image(python_packages=["a"])
        .add_python_version(PythonVersion.Python311)
        .add_python_packages(["b", "a"])
        .add_commands(["one"])
        .add_commands(["two"])
        .with_envs("KEY=value")
        .with_envs(["OTHER=x"])
    )
    assert image.spec == ImageSpec(
        python_version="python3.11",
        python_packages=("a", "b", "a"),
        commands=("one", "two"),
        env_vars={"KEY": "value", "OTHER": "x"},
    )


def test_commands_between_packages_keep_their_place() -> None:
    """The spec tells how many packages come before each command, unless all do."""
    image = Image(commands=["one"]).add_python_packages(["a", "b"]).add_commands(["two", "three"])
    assert (image.spec.installed, image.add_python_packages(["c"]).spec.installed) == ((0, 2, 2), (0, 2, 2))
    assert Image(python_packages=["a"], commands=["one"]).spec.installed == ()


def test_build_does_nothing_while_treadle_imports_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that imports the app must not build its own image."""
    monkeypatch.setenv("TREADLE_IMPORTING_USER_CODE", "true")
    assert Image().build() == ""


def test_clear_drops_earlier_variables() -> None:
    """`with_envs(…, clear=True)` starts over."""
    assert Image(env_vars={"A": "1"}).with_envs({"B": "2"}, clear=True).spec.env_vars == {"B": "2"}


def test_packages_come_from_a_requirements_file(tmp_path: Path) -> None:
    """Comments and empty lines are not packages."""
    file = tmp_path / "requirements.txt"
    file.write_text("# ours\nnumpy==2.0  # fast\n\n  pillow\nx @ https://host/x.whl#sha256=1\n")
    expected = ("numpy==2.0", "pillow", "x @ https://host/x.whl#sha256=1")
    assert Image(python_packages=str(file)).spec.python_packages == expected
    assert Image().add_python_packages(file).spec.python_packages == expected


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    """A path that leads to nothing is an error where it is written."""
    with pytest.raises(FileNotFoundError, match=r"missing\.txt.*list"):
        Image(python_packages=str(tmp_path / "missing.txt"))
    with pytest.raises(FileNotFoundError, match="Dockerfile"):
        Image.from_dockerfile(tmp_path / "Dockerfile")


def test_a_registrys_image_is_the_base() -> None:
    """By its name."""
    assert Image.from_registry("docker.io/python:3.12").spec.base_image == "docker.io/python:3.12"


def test_a_dockerfile_is_taken_whole_and_its_context_only_if_it_copies(tmp_path: Path) -> None:
    """The folder is the file's own, or the one given; packages and commands may be added."""
    file = tmp_path / "Dockerfile"
    file.write_text("FROM debian\nRUN echo COPY that\n")
    image = Image.from_dockerfile(file).add_commands(["one"])
    assert (image.spec.dockerfile, image.spec.commands, image.context) == (file.read_text(), ("one",), None)
    file.write_text("FROM debian\n  copy a /a\n")
    assert Image.from_dockerfile(str(file)).context == tmp_path
    (tmp_path / "other").mkdir()
    assert Image.from_dockerfile(file, context_dir=tmp_path / "other").context == tmp_path / "other"
    with pytest.raises(FileNotFoundError, match="no folder"):
        Image.from_dockerfile(file, context_dir="nowhere")


@pytest.mark.parametrize("name", ["--privileged", "two words"])
def test_a_base_image_is_a_name_and_no_option(name: str) -> None:
    """It becomes an argument of a command."""
    with pytest.raises(InvalidOption, match="the name of an image"):
        Image(base_image=name)



@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"python_version": "2.7"}, "python3.N"),
        ({"python_version": 3.12}, "a string"),
        ({"python_packages": ["-r other.txt"]}, "requirement specifiers"),
        ({"python_packages": [""]}, "requirement specifiers"),
        ({"python_packages": [1]}, "a list of strings"),
        ({"commands": "echo"}, "a list of strings"),
        ({"env_vars": "KEY"}, '"KEY=value"'),
        ({"env_vars": "=value"}, '"KEY=value"'),
        ({"env_vars": "KEY="}, '"KEY=value"'),
        ({"env_vars": ["A=b=c"]}, '"KEY=value"'),
        ({"env_vars": {"A": 1}}, "a string"),
        ({"base_image": 5}, "a string"),
    ],
)
def test_a_wrong_value_says_what_is_allowed(options: dict[str, Any], said: str) -> None:
    """Errors come from the line that holds the value, and are ValueErrors as in Beam."""
    with pytest.raises(InvalidOption, match=said) as caught:
        Image(**options)
    assert isinstance(caught.value, ValueError)


def test_build_shows_the_log_and_returns_the_id(configured: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """Like `.put()`, and found the second time; a build that fails raises its reason."""
    image = Image(python_packages=["six"])
    assert [image.build(), image.build()] == ["image-1", "image-1"]
    assert capsys.readouterr().out == "=> Building image\n   installing\n=> Image ready\n=> Using cached image\n"
    configured.build_error = "No package named sixx."
    with pytest.raises(BuildFailed, match="sixx"):
        image.build()
