"""Images of an engine: a base image, what commands and packages add to it, and a place for the runner."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from uv import find_uv_bin

from treadle.model.deployment import Image, ImageSpec, spec_digest
from treadle.model.errors import BuildFailed, sentence
from treadle.model.rooted import needs_engine
from treadle.runtime import packages
from treadle.runtime.commands import Commands, Emit, Shell, build_environment
from treadle.runtime.docker import LAYER
from treadle.runtime.engine import Engine, bound, environ, find
from treadle.runtime.environment import READY, command_failed, steps
from treadle.runtime.python import OLDEST, Python, running_python

VENV = "/opt/treadle/venv"
BUILD_NAME = "treadle-build-"  # prefix of the names of containers in which images are made
BUILD_LABEL = "treadle.build"  # whose build; images inherit it, and so do the containers of tasks that run in them
MAKING = ".engine-"  # prefix of folders in which images are made, then the pid of who makes it
DEFAULT_BASE = "docker.io/library/python:{minor}-slim"
_SLEEP = "while :; do sleep 86400; done"
# Prints the interpreter and its version, for the first name that is there.
_FIND = """for name in "$@"; do
  command -v "$name" >/dev/null && exec "$name" -c 'import sys; print(sys.executable, sys.version.split()[0])'
done; exit 3"""

Contexts = Callable[[str], Path]  # the folder of a packed source


def tag_of(image_id: str) -> str:
    return f"treadle/{image_id}"


def engine_or_fail(spec: ImageSpec) -> Engine:
    """The engine that this image needs.

    Raises:
        BuildFailed: says what needs one, why there is none, and what to do.
    """
    engine, why = find()
    if engine is None:
        raise BuildFailed(
            f"The image needs Docker or Podman: {needs_engine(spec)}. {why}",
            "Install and start one on the machine that runs the containers (`apt-get install docker.io`), or leave "
            "this out and use python_packages and commands alone.",
        )
    return engine


class EngineShell(Shell):
    """Runs commands in a container in which an image is made. `folder` is there by the same name."""

    def __init__(self, shell: Shell, engine: Engine, container: str, folder: Path) -> None:
        super().__init__(shell._commands, shell.emit, shell._env, shell._held)
        self._engine = engine
        self._container = container
        self.folder = folder
        trusted = os.environ.get("SSL_CERT_FILE", "")  # of this machine, which need not be in the image
        self._certificates = Path(shutil.copy(trusted, folder)) if Path(trusted).is_file() else None

    def run(
        self, argv: Sequence[str], cwd: Path, *, env: Mapping[str, str] | None = None, emit: Emit | None = None
    ) -> tuple[int, list[str]]:
        """Variables are passed by name: their values are on no command line."""
        known = build_environment().items()
        given = {key: value for key, value in known if key.startswith("UV_") or key.lower().endswith("_proxy")}
        given |= {"SSL_CERT_FILE": str(self._certificates)} if self._certificates else {}
        given |= {"UV_CACHE_DIR": f"{self.folder}/cache", "UV_LINK_MODE": "copy", **dict(env or {}), **self._env}
        names = [part for key in given for part in ("--env", key)]
        outer = [self._engine.program, "exec", *names, "--workdir", str(cwd), self._container, *argv]
        env = environ() | given
        return self._commands.run(outer, cwd=Path("/"), env=env, emit=emit or self.emit, held=self._held)


class EngineImages:
    """Images of Docker or Podman. Each has a folder in `root` with the READY file alone, as environments have."""

    def __init__(self, root: Path, commands: Commands, contexts: Contexts) -> None:
        self._root = root
        self._commands = commands
        self._contexts = contexts

    def resolve(self, spec: ImageSpec, emit: Emit) -> Image:
        """Fix the base image; packages and Python are known when the image is made."""
        engine = engine_or_fail(spec)
        base = self._base(engine, spec, emit)
        return Image(_id(spec, base), spec_digest(spec), spec, "", "", time.time())

    def found(self, image: Image) -> Image | None:
        """What is known of an image that is ready."""
        try:
            known = msgspec.msgpack.decode((self._root / image.id / READY).read_bytes(), type=Image)
        except (OSError, msgspec.MsgspecError):
            return None
        engine = engine_or_fail(image.spec)
        return known if engine.ask("image", "inspect", "--format", "{{.Id}}", tag_of(image.id)) else None

    def make(self, image: Image, shell: Shell) -> Image:
        """Make an image; what it then is known as.

        Raises:
            BuildFailed: names the base image, package or command at fault.
        """
        engine = engine_or_fail(image.spec)
        base = self._base(engine, image.spec, shell.emit)
        if _id(image.spec, base) != image.id:
            raise BuildFailed("The base image has changed since the image was resolved.", "Deploy again.")
        name = f"{BUILD_NAME}{image.id}"
        engine.ask("rm", "--force", name)
        with TemporaryDirectory(prefix=f"{MAKING}{os.getpid()}-", dir=self._root) as folder:
            try:
                engine.run(*_start(name, base, Path(folder), self._commands.mark))
                made = _Making(image, EngineShell(shell, engine, name, Path(folder))).run()
                engine.run("exec", name, "rm", "-rf", f"{folder}/cache")  # root's, which the agent may not be
                engine.run("commit", "--change", 'CMD ["true"]', name, tag_of(image.id))
            except BaseException:
                engine.ask("rm", "--force", name)
                if image.spec.dockerfile:
                    engine.ask("rmi", base)  # unless another image is made from it
                raise
            engine.ask("rm", "--force", name)
        environment = self._root / image.id
        environment.mkdir(exist_ok=True)
        (environment / (READY + ".new")).write_bytes(msgspec.msgpack.encode(made))
        (environment / (READY + ".new")).replace(environment / READY)
        return made

    def _base(self, engine: Engine, spec: ImageSpec, emit: Emit) -> str:
        """The id of the base image, which is built or pulled now if it is not there."""
        if spec.dockerfile:
            return self._of_dockerfile(engine, spec, emit)
        minor = spec.python_version.removeprefix("python")
        default = DEFAULT_BASE.format(minor=running_python().minor if minor == "3" else minor)
        name = spec.base_image or default
        asked = ("image", "inspect", "--format", "{{.Id}}", name)
        if not engine.ask(*asked):
            emit(f"Pulling {name}")
            self._run_engine(engine, ["pull", name], Path("/"), emit, f"The base image {name!r} could not be pulled")
        return engine.run(*asked)

    def _of_dockerfile(self, engine: Engine, spec: ImageSpec, emit: Emit) -> str:
        with TemporaryDirectory(prefix="treadle-dockerfile-") as folder:
            file = Path(folder, "Dockerfile")
            file.write_text(spec.dockerfile)
            context = self._contexts(spec.context_id) if spec.context_id else Path(folder)
            argv = ["build", "--network", "host", "--iidfile", f"{folder}/id", "--file", str(file), str(context)]
            self._run_engine(engine, argv, context, emit, "The Dockerfile could not be built")
            return Path(folder, "id").read_text().strip()

    def _run_engine(self, engine: Engine, argv: list[str], cwd: Path, emit: Emit, what: str) -> None:
        code, lines = self._commands.run([engine.program, *argv], cwd=cwd, env=environ(), emit=emit)
        if code != 0:
            raise BuildFailed(f"{what}: {sentence(lines[-1] if lines else 'no reason was told')}")


def _id(spec: ImageSpec, base: str) -> str:
    parts = [base, spec.python_version, spec.python_packages, spec.commands, spec.installed]
    return hashlib.sha256(msgspec.json.encode([*parts, sorted(spec.env_vars.items())])).hexdigest()[:32]


def _start(name: str, base: str, folder: Path, mark: str) -> list[str]:
    """The arguments that start the container in which an image is made: as root, with the machine's network."""
    uv = find_uv_bin()
    return [
        "run", "--detach", "--pull", "never", "--name", name, "--label", f"{BUILD_LABEL}={mark}",
        "--network", "host", "--user", "0:0", "--workdir", "/",
        *bound(uv, uv, readonly=True), *bound(str(folder), str(folder)),
        "--entrypoint", "/bin/sh", base, "-c", _SLEEP,
    ]  # fmt: skip


class _Making:
    """One image in the making, in a container that waits for commands."""

    def __init__(self, image: Image, shell: EngineShell) -> None:
        self._image = image
        self._shell = shell
        self._python: Python | None = None
        self._lock = image.lock

    def run(self) -> Image:
        spec = self._image.spec
        for command, count in steps(spec):
            if count:
                self._install(count)
            if command:
                self._run(command)
        python = self._venv()
        self._compile()
        return msgspec.structs.replace(self._image, python=python.version, lock=self._lock)

    def _install(self, count: int) -> None:
        spec, python = self._image.spec, self._venv()
        wanted = spec.python_packages[:count]
        self._lock = self._lock or packages.lock(self._shell, spec.python_packages, python)
        lock = self._lock
        if count < len(spec.python_packages):
            lock = packages.lock_first(self._shell, lock, wanted, python)
        self._shell.emit(f"Installing packages: {', '.join(wanted)}")
        packages.install(self._shell, Path(VENV), lock, wanted)

    def _run(self, command: str) -> None:
        self._shell.emit(f"Running {command}")
        script = f'export VIRTUAL_ENV={VENV} PATH="{VENV}/bin:$PATH"; {command}'
        code, lines = self._shell.run(["sh", "-c", script], Path("/"))
        if code != 0:
            raise command_failed(command, code, lines)

    def _venv(self) -> Python:
        """The image's own interpreter, in an environment that sees what the base image has."""
        if self._python is None:
            inside, version = self._find_python()
            argv = ["venv", "--quiet", "--no-project", "--offline", "--system-site-packages", "--python", inside]
            packages.uv_or_fail(self._shell, [*argv, VENV], "its environment could not be made", Path("/"))
            self._python = Python(version, f"{VENV}/bin/python")
            minor = self._python.minor
            text = json.dumps(f"{LAYER}\n{LAYER}/treadle/aliases\n")
            program = f"open('{VENV}/lib/python{minor}/site-packages/_treadle.pth', 'w').write({text})"
            self._shell.run([inside, "-I", "-c", program], Path("/"))
        return self._python

    def _find_python(self) -> tuple[str, str]:
        wanted = self._image.spec.python_version.removeprefix("python")
        names = [f"python{wanted}", "python3", "python"]
        code, lines = self._shell.run(["sh", "-c", _FIND, "sh", *names], Path("/"), emit=lambda _: None)
        base = self._image.spec.base_image or "The base image"
        oldest = ".".join(map(str, OLDEST))
        advice = f"Take a base image with Python {oldest} or newer, or install one by a command before the packages."
        if code != 0 or not lines:
            raise BuildFailed(f"{base} has no Python, which Treadle's runner needs.", advice)
        inside, version = lines[-1].split()
        if [int(part) for part in version.split(".")[:2]] < OLDEST:
            raise BuildFailed(f"{base} has Python {version}, which is too old for Treadle's runner.", advice)
        if wanted != "3" and not f"{version}.".startswith(f"{wanted}."):
            raise BuildFailed(f"{base} has Python {version}, not {wanted}.", "Take another base image or version.")
        return inside, version

    def _compile(self) -> None:
        """Containers cannot: their root is read-only."""
        argv = [f"{VENV}/bin/python", "-I", "-S", "-m", "compileall", "-q", "-j", "0", f"{VENV}/lib"]
        self._shell.run(argv, Path("/"), emit=lambda _: None)
