"""Packages by uv: resolved to a lock with hashes, installed from it, and what uv says when it cannot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from uv import find_uv_bin

from treadle.model.errors import BuildFailed, sentence
from treadle.runtime import layer
from treadle.runtime.commands import Shell, news
from treadle.runtime.python import Python

_QUIET = ("--no-progress", "--color", "never")
_NAME = re.compile(r"[\w.-]+")


def lock(shell: Shell, packages: Sequence[str], python: Python) -> str:
    """Every package that these need, by version and hashes.

    Raises:
        BuildFailed: names the packages at fault.
    """
    return _compile(shell, packages, python, layer.CONSTRAINTS, "--generate-hashes")


def lock_first(shell: Shell, whole: str, packages: Sequence[str], python: Python) -> str:
    """The part of a whole lock that some of its packages need."""
    pins = "\n".join(line.rstrip(" \\") for line in whole.splitlines() if _NAME.match(line))
    needed = _compile(shell, packages, python, pins)
    names = {match[0] for line in needed.splitlines() if (match := _NAME.match(line))}
    kept, inside = [], False
    for line in whole.splitlines():
        match = _NAME.match(line)
        inside = match[0] in names if match else inside
        if inside:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _compile(shell: Shell, packages: Sequence[str], python: Python, constraints: str, *how: str) -> str:
    with TemporaryDirectory(prefix="treadle-lock-", dir=shell.folder) as name:
        folder = Path(name)
        (folder / "packages.in").write_text("\n".join(packages) + "\n")
        (folder / "constraints.txt").write_text(constraints)
        argv = ["pip", "compile", "packages.in", "--constraint", "constraints.txt", "--output-file", "lock.txt"]
        argv += ["--no-header", "--no-annotate", "--no-emit-index-url", *how, "--python", python.path, *_QUIET]
        # uv repeats the lock on standard output
        quiet = ["sh", "-c", 'exec "$@" >/dev/null', "sh", find_uv_bin(), *argv]
        code, lines = shell.run(quiet, folder, emit=news(shell.emit))
        if code != 0:
            raise _package_error("resolved", packages, lines)
        return (folder / "lock.txt").read_text()


def install(shell: Shell, environment: Path, text: str, packages: Sequence[str]) -> None:
    """Install what the text of a lock says, checked against its hashes.

    Raises:
        BuildFailed: names the packages at fault.
    """
    with TemporaryDirectory(prefix="treadle-lock-", dir=shell.folder) as name:
        file = Path(name, "lock.txt")
        file.write_text(text)
        argv = ["pip", "install", "--no-deps", "--require-hashes", "--no-python-downloads"]
        argv += ["--python", str(environment / "bin" / "python"), "--requirement", str(file)]
        code, lines = _uv(shell, argv, file.parent)
    if code != 0:
        raise _package_error("installed", packages, lines)


def uv_or_fail(shell: Shell, argv: Sequence[str], what: str, cwd: Path) -> None:
    """Run uv for what no package is at fault.

    Raises:
        BuildFailed: says `what` could not be done, and uv's reason.
    """
    code, lines = _uv(shell, argv, cwd)
    if code != 0:
        raise BuildFailed(f"The image could not be built: {what}: {_reason(lines)}")


def _uv(shell: Shell, argv: Sequence[str], cwd: Path) -> tuple[int, list[str]]:
    heard = news(shell.emit, "Using ", "Resolved")  # the lock was resolved before
    return shell.run([find_uv_bin(), *argv, *_QUIET], cwd, emit=heard)


def _package_error(verb: str, packages: Sequence[str], lines: Sequence[str]) -> BuildFailed:
    """Name the packages that uv complains of, else all of them, with what it said."""
    said = _reason(lines)
    names = ", ".join([package for package in packages if _names(said, package)] or packages)
    ours = [needed for needed in layer.CONSTRAINTS.split() if needed in said]
    if ours:
        said += f" Treadle itself needs {' and '.join(ours)}: its runner is in every image."
        advice = "Ask for versions that go with it."
    else:
        advice = "Check the spelling and version; `uv pip install` on this machine tells more."
    return BuildFailed(f"python_packages {names} could not be {verb}: {said}", advice)


def _reason(lines: Sequence[str]) -> str:
    """What uv says of its failure, in one sentence: the cause, or the error where it gives none."""
    error = next((at for at, line in enumerate(lines) if line.startswith("error:")), 0)
    text = " ".join(line.strip(" ×│╰─▶├") for line in lines[error:] if line.strip(" ^"))
    text = re.sub(r" in `packages\.in` at position \d+", "", text.removeprefix("error: "))
    text = text.removeprefix("No solution found when resolving dependencies").strip()
    return sentence(text.removeprefix("cause: ").replace(" cause: ", ": "))


def _names(said: str, package: str) -> bool:
    """Whether uv's words name a package, which it writes in its own way."""
    name = re.split(r"[^\w.-]", package, maxsplit=1)[0].lower().replace("_", "-")
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", said.lower().replace("_", "-")) is not None
