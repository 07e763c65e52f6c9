"""The image of a container: a Python version, packages, commands and variables, as the user declares them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from treadle.model.deployment import ImageSpec, bad, check_env, check_image
from treadle.sdk import env as environment

Packages = Sequence[str] | str | Path
_COPIES = re.compile(r"^[^\S\n]*(?:COPY|ADD)\s", re.IGNORECASE | re.MULTILINE)


class Image:
    """What a container is made of. Same definition, same image; it is built once and then found.

    `python_packages` is a list of requirement specifiers or the path of a requirements file. Packages and commands
    are run in the order given. Methods change the image and return it, so that they can be chained.
    """

    def __init__(
        self,
        python_version: str = "python3",
        python_packages: Packages = (),
        commands: Sequence[str] = (),
        base_image: str | None = None,
        env_vars: Mapping[str, str] | Sequence[str] | str | None = None,
    ) -> None:
        self._python_version = _text("python_version", python_version)
        self._packages: list[str] = []
        self._commands: list[str] = []
        self._installed: list[int] = []  # for each command, how many packages come before it
        self._env_vars: dict[str, str] = {}
        self._base_image = _text("base_image", base_image or "")
        self._dockerfile = ""
        self.context: Path | None = None  # the folder that the Dockerfile copies from, if it does
        self.add_python_packages(python_packages).add_commands(commands).with_envs(env_vars or {})

    @classmethod
    def from_registry(cls, image_uri: str) -> Self:
        """Start from an image of a registry, e.g. `docker.io/library/python:3.12-slim`, which must have Python.

        Takes Docker or Podman on the machine that runs the containers; its login is what opens private registries.
        """
        return cls(base_image=image_uri)

    @classmethod
    def from_dockerfile(cls, path: str | Path, context_dir: str | Path | None = None) -> Self:
        """Start from what a Dockerfile makes, which must have Python. Takes Docker or Podman, as above.

        `context_dir` is the folder that its COPY and ADD name files of; by default the Dockerfile's own.

        Raises:
            FileNotFoundError: there is no file at `path`, or no folder at `context_dir`.
        """
        file, image = Path(path), cls()
        if not file.is_file():
            raise FileNotFoundError(f"There is no Dockerfile at {str(path)!r}.")
        folder = Path(context_dir) if context_dir is not None else file.parent
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {str(context_dir)!r} for the Dockerfile to copy from.")
        image._dockerfile = file.read_text()
        image.context = folder.absolute() if _COPIES.search(image._dockerfile) else None
        return image._checked()

    def add_python_version(self, python_version: str) -> Self:
        """Use this Python version instead."""
        self._python_version = _text("python_version", python_version)
        return self._checked()

    def add_python_packages(self, python_packages: Packages) -> Self:
        """Install these packages too."""
        if isinstance(python_packages, str | Path):
            self._packages += _read_requirements(Path(python_packages))
        else:
            self._packages += _texts("python_packages", python_packages)
        return self._checked()

    def add_commands(self, commands: Sequence[str]) -> Self:
        """Run these shell commands too while the image is built, after the packages added so far."""
        added = _texts("commands", commands)
        self._commands += added
        self._installed += [len(self._packages)] * len(added)
        return self._checked()

    def with_envs(self, env_vars: Mapping[str, str] | Sequence[str] | str, clear: bool = False) -> Self:
        """Set variables for the build: a dict, "KEY=value", or a list of those; `clear` drops earlier ones."""
        added = dict(env_vars) if isinstance(env_vars, Mapping) else _parse_envs(env_vars)
        self._env_vars = added if clear else self._env_vars | added
        return self._checked()

    def build(self) -> str:
        """Build it now on the server's machine, or find it there, and show how it goes; the image's id.

        "" while Treadle imports this module.

        Raises:
            BuildFailed: names the package, command or Python version at fault.
        """
        if environment.called_on_import():
            return ""
        from treadle.client import Client  # noqa: PLC0415 - importing an app stays cheap
        from treadle.model.settings import load  # noqa: PLC0415
        from treadle.sdk.console import Console  # noqa: PLC0415
        from treadle.sdk.local import ensure_server  # noqa: PLC0415
        from treadle.sdk.prepare import build_image, with_context  # noqa: PLC0415

        console = Console()
        settings = ensure_server(load(), console)
        client = Client(settings.url, settings.token)
        spec = with_context(client, self.spec, self.context, console, data=settings.data)
        return build_image(client, spec, console)

    @property
    def spec(self) -> ImageSpec:
        """The definition as it is sent to the server."""
        return ImageSpec(
            python_version=self._python_version,
            python_packages=tuple(self._packages),
            commands=tuple(self._commands),
            installed=tuple(self._installed) if any(n < len(self._packages) for n in self._installed) else (),
            env_vars=dict(self._env_vars),
            base_image=self._base_image,
            dockerfile=self._dockerfile,
        )

    def _checked(self) -> Self:
        check_image(self.spec)
        return self


def _text(option: str, value: object) -> str:
    if not isinstance(value, str):
        raise bad(option, value, "a string")
    return str.__str__(value)  # of an enum member its value


def _texts(option: str, values: object) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(isinstance(one, str) for one in values):
        raise bad(option, values, "a list of strings")
    return [str(one) for one in values]


def _read_requirements(path: Path) -> list[str]:
    """The requirement specifiers of a file, without comments and empty lines."""
    if not path.is_file():
        advice = "Give python_packages as a list, or as the path of a file."
        raise FileNotFoundError(f"There is no requirements file at {str(path)!r}. {advice}")
    lines = (line.split(" #")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _parse_envs(env_vars: Sequence[str] | str) -> dict[str, str]:
    """Variables from "KEY=value" strings."""
    parsed = {}
    for one in _texts("env_vars", [env_vars] if isinstance(env_vars, str) else env_vars):
        key, equals, value = one.partition("=")
        if not equals or not key or not value or "=" in value:
            raise bad("env_vars", one, '"KEY=value" with one "=" and neither side empty; use a dict for other values')
        parsed[key] = value
    return check_env("env_vars", parsed)
