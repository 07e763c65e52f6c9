"""Images: definitions resolved once to a lock, and built once per machine into environments that are shared."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import sysconfig
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from uv import find_uv_bin

from treadle.model.deployment import Image, ImageSpec, spec_digest
from treadle.model.errors import BuildFailed, sentence
from treadle.runtime import layer
from treadle.runtime.commands import Commands, Emit, build_environment, news, stopped
from treadle.runtime.python import Python, find_python

READY = "image.msgpack"  # written last: an environment without it is a leftover of a killed build
_PIP = re.compile(r"\bpip3?\b")
_LOCK_RETRY = 0.05


class Built(msgspec.Struct, frozen=True):
    """An environment that is ready: its image, its interpreter, and whether it was there already."""

    image: Image
    python: Path
    cached: bool


class Images:
    """The environments in one folder (DATA/images). Safe for several threads and processes at once."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._commands = Commands()
        self._uv = find_uv_bin()
        self._layers: dict[str, Path] = {}  # by Python minor version; made sure of once per process
        (self._root / ".locks").mkdir(parents=True, exist_ok=True)

    def build(self, spec: ImageSpec, image: Image | None, emit: Emit) -> Built:
        """Resolve a definition (unless `image` is its resolution) and make its environment.

        Raises:
            BuildFailed: names the package, command or Python version that is at fault.
        """
        return self.ensure(image or self.resolve(spec, emit), emit)

    def stop(self) -> None:
        """Kill builds in progress; they and later ones fail."""
        self._commands.stop()

    def resolve(self, spec: ImageSpec, emit: Emit) -> Image:
        """Fix the Python version and every package by version and hash. No packages: nothing is asked of anyone."""
        if spec.base_image:
            raise BuildFailed(
                f"base_image={spec.base_image!r} needs the Docker runtime, which is not available yet.",
                "Leave base_image out and use python_packages and commands.",
            )
        python = find_python(spec.python_version)
        lock = self._lock_packages(spec.python_packages, python, emit) if spec.python_packages else ""
        parts = [python.version, sysconfig.get_platform(), lock, spec.commands, sorted(spec.env_vars.items())]
        image_id = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]
        return Image(image_id, spec_digest(spec), spec, python.version, lock, time.time())

    def _lock_packages(self, packages: Sequence[str], python: Python, emit: Emit) -> str:
        with TemporaryDirectory(prefix="treadle-lock-") as name:
            folder = Path(name)
            (folder / "packages.in").write_text("\n".join(packages) + "\n")
            (folder / "constraints.txt").write_text(layer.CONSTRAINTS)
            argv = ["pip", "compile", "packages.in", "--constraint", "constraints.txt", "--output-file", "lock.txt"]
            argv += ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
            argv += ["--python", python.path]
            # uv repeats the lock on standard output
            quiet = ["sh", "-c", 'exec "$@" >/dev/null', "sh", self._uv, *argv, *_QUIET]
            code, lines = self._commands.run(quiet, cwd=folder, env=build_environment(), emit=news(emit))
            if code != 0:
                raise _package_error("resolved", packages, lines)
            return (folder / "lock.txt").read_text()

    def ensure(self, image: Image, emit: Emit) -> Built:
        """The environment of a resolved image, built now if it is not there."""
        environment = self._root / image.id
        ready = Built(image, environment / "bin" / "python", cached=_is_ready(environment))
        if not ready.cached:
            with self._locked(image.id) as held:
                ready = msgspec.structs.replace(ready, cached=_is_ready(environment))  # another may have built it
                if not ready.cached:
                    self._make_or_sweep(environment, image, emit, held)
        python = Python(image.python, str(ready.python))
        layer.attach(environment, python, self._runner_layer(python, emit))
        return ready

    def _make_or_sweep(self, environment: Path, image: Image, emit: Emit, held: int) -> None:
        shutil.rmtree(environment, ignore_errors=True)  # what a killed build left
        try:
            self._make(environment, image, emit, held)
        except BaseException:
            shutil.rmtree(environment, ignore_errors=True)
            raise

    def _make(self, environment: Path, image: Image, emit: Emit, held: int) -> None:
        """Build in place, since scripts in an environment name its path; the READY file makes it count."""
        spec = image.spec
        seed = ["--seed"] if any(map(_PIP.search, spec.commands)) else ["--offline"]
        argv = ["venv", "--quiet", "--no-project", *seed, "--python", find_python(image.python).path]
        self._uv_or_fail([*argv, str(environment)], "its environment could not be made", emit, held)
        if image.lock:
            emit(f"Installing packages: {', '.join(spec.python_packages)}")
            self._install(environment, image, emit, held)
        for command in spec.commands:
            self._run_command(command, environment, spec, emit, held)
        draft = environment / (READY + ".new")
        draft.write_bytes(msgspec.msgpack.encode(image))
        draft.replace(environment / READY)

    def _install(self, environment: Path, image: Image, emit: Emit, held: int) -> None:
        lock = environment / "lock.txt"
        lock.write_text(image.lock)
        argv = ["pip", "sync", "--require-hashes", "--compile-bytecode", "--no-python-downloads", *_QUIET]
        argv += ["--python", str(environment / "bin" / "python"), str(lock)]
        code, lines = self._uv_run(argv, emit, held)
        if code != 0:
            raise _package_error("installed", image.spec.python_packages, lines)

    def _run_command(self, command: str, environment: Path, spec: ImageSpec, emit: Emit, held: int) -> None:
        emit(f"Running {command}")
        env = build_environment()
        env |= {"VIRTUAL_ENV": str(environment), "PATH": f"{environment / 'bin'}:{env.get('PATH', os.defpath)}"}
        with TemporaryDirectory(prefix="treadle-build-") as folder:
            code, lines = self._commands.run(
                ["sh", "-c", command], cwd=Path(folder), env=env | spec.env_vars, emit=emit, held=[held]
            )
        if code != 0:
            last = sentence(lines[-1] if lines else "it printed nothing")
            raise BuildFailed(
                f"The command {command!r} ended with exit code {code}: {last}", "Try it in a shell, then build again."
            )

    def _runner_layer(self, python: Python, emit: Emit) -> Path:
        if python.minor not in self._layers:
            target = self._root / layer.layer_name(python)
            with self._locked(target.name) as held:
                if not target.exists():
                    fetch = partial(self._fetch, python, emit, held)
                    layer.build_layer(target, python, fetch)
                    argv = [python.path, "-m", "compileall", "-q", str(target)]
                    self._commands.run(argv, cwd=target, env=build_environment(), emit=lambda _: None)
            self._layers[python.minor] = target
        return self._layers[python.minor]

    def _fetch(self, python: Python, emit: Emit, held: int, names: list[str], target: Path) -> None:
        emit(f"Installing Treadle's runner for Python {python.minor}")
        argv = ["pip", "install", "--target", str(target), "--python", python.path, *_QUIET, *names]
        what = f"the runner's libraries ({', '.join(names)}) could not be installed for Python {python.minor}"
        self._uv_or_fail(argv, what, emit, held)

    def _uv_or_fail(self, argv: Sequence[str], what: str, emit: Emit, held: int) -> None:
        code, lines = self._uv_run(argv, emit, held)
        if code != 0:
            raise BuildFailed(f"The image could not be built: {what}: {_reason(lines)}")

    def _uv_run(self, argv: Sequence[str], emit: Emit, held: int) -> tuple[int, list[str]]:
        heard = news(emit, "Using ", "Resolved")  # the lock was resolved before
        return self._commands.run([self._uv, *argv], cwd=self._root, env=build_environment(), emit=heard, held=[held])

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[int]:
        """Hold the file lock of one environment; yields its file, which commands keep open with us."""
        with (self._root / ".locks" / name).open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._commands.stopped.wait(_LOCK_RETRY):
                        raise stopped() from None
            yield file.fileno()


_QUIET = ("--no-progress", "--color", "never")


def _is_ready(environment: Path) -> bool:
    """Built to the end, and its interpreter (a link to the machine's) is still there."""
    return (environment / READY).exists() and (environment / "bin" / "python").exists()


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
