"""Images: definitions resolved once to a lock, and built once per machine into environments that are shared."""

from __future__ import annotations

import hashlib
import os
import sysconfig
import time
from functools import partial
from pathlib import Path

import msgspec

from treadle.model.deployment import Image, ImageSpec, spec_digest
from treadle.model.errors import BuildFailed, NotFound
from treadle.model.rooted import needs_engine
from treadle.runtime import layer, packages
from treadle.runtime.bytecode import Bytecode, compile_now
from treadle.runtime.commands import Commands, Emit, Shell
from treadle.runtime.engine_image import VENV, Contexts, EngineImages, tag_of
from treadle.runtime.environment import READY, Maker, is_ready, python_of
from treadle.runtime.locks import Locks
from treadle.runtime.python import Python, find_python
from treadle.runtime.seal import remove
from treadle.runtime.shelf import Shelf


class Built(msgspec.Struct, frozen=True):
    """An image that is ready: its interpreter, and whether it was there already.

    `engine_image`: its name, if it is one of an engine. Then the interpreters are paths in it, where the engine has
    shut the runner off too, and `layer` is to be mounted.
    """

    image: Image
    python: Path
    runner: Path  # from which the runner starts: on its path there is nothing of the image
    cached: bool
    engine_image: str = ""
    layer: Path | None = None


_BUSY = "This image is being built by another: waiting for it"


def _note_use(environment: Path) -> None:
    """The READY file's time is that of the last use."""
    now = time.time_ns()
    os.utime(environment / READY, ns=(now, now))


def _known_here(version: str) -> Python:
    """A Python of the same minor version on this machine; one without a path where there is none."""
    minor = Python(version, "").minor
    try:
        return Python(version, find_python(minor).path)
    except BuildFailed:
        return Python(version, "")


def _no_contexts(context_id: str) -> Path:
    raise NotFound(f"The context {context_id} of the Dockerfile is not here.", "Deploy again.")


class Images:
    """The environments in one folder (DATA/images). Safe for several threads and processes at once."""

    def __init__(self, root: Path, contexts: Contexts | None = None) -> None:
        self._root = root.absolute()
        self._commands = Commands()
        self._of_engine = EngineImages(self._root, self._commands, contexts or _no_contexts)
        self._locks = Locks(self._root / ".locks", self._commands.stopped)
        self._bytecode = Bytecode(self._commands)
        self._layers: dict[str, Path] = {}  # by Python minor version; made sure of once per process
        self.shelf = Shelf(self._root, self._locks, self._bytecode)

    def build(self, spec: ImageSpec, image: Image | None, emit: Emit) -> Built:
        """Resolve a definition (unless `image` is its resolution) and make its environment.

        Raises:
            BuildFailed: names the package, command or Python version that is at fault.
        """
        if image is None or not self._can_make(image):
            image = self.resolve(spec, emit)
        return self.ensure(image, emit)

    def _can_make(self, image: Image) -> bool:
        """Whether it is there or its Python is: else the machine has got another since, and the image is another."""
        try:
            if needs_engine(image.spec):
                return self._of_engine.found(image) is not None
            return is_ready(self._root / image.id) or bool(find_python(image.python))
        except BuildFailed:
            return False

    def stop(self) -> None:
        """Kill builds in progress; they and later ones fail."""
        self._commands.stop()

    def resolve(self, spec: ImageSpec, emit: Emit) -> Image:
        """Fix the Python version and every package by version and hash. No packages: nothing is asked of anyone."""
        if needs_engine(spec):
            return self._of_engine.resolve(spec, emit)
        python = find_python(spec.python_version)
        wanted = spec.python_packages
        lock = packages.lock(Shell(self._commands, emit, spec.env_vars), wanted, python) if wanted else ""
        order = [spec.installed, wanted] if spec.installed else []
        parts = [python.version, sysconfig.get_platform(), lock, spec.commands, sorted(spec.env_vars.items()), *order]
        image_id = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]
        return Image(image_id, spec_digest(spec), spec, python.version, lock, time.time())

    def ensure(self, image: Image, emit: Emit) -> Built:
        """The environment of a resolved image, built now if it is not there."""
        if needs_engine(image.spec):
            return self._ensure_of_engine(image, emit)
        environment = self._root / image.id
        home = layer.runner_home(environment)
        ready = Built(image, python_of(environment), python_of(home), cached=is_ready(environment))
        if not ready.cached:
            with self._locks.hold(image.id, _BUSY, emit) as held:
                ready = msgspec.structs.replace(ready, cached=is_ready(environment))  # another may have built it
                if not ready.cached:
                    self._make_or_sweep(environment, image, emit, held)
        _note_use(environment)
        self._bytecode.later(environment)
        self._attach(environment, Python(image.python, str(ready.python)), emit)
        return ready

    def _ensure_of_engine(self, image: Image, emit: Emit) -> Built:
        ready = self._of_engine.found(image)
        cached = ready is not None
        if ready is None:
            with self._locks.hold(image.id, _BUSY, emit) as held:
                ready = self._of_engine.found(image)
                if ready is None:
                    ready = self._of_engine.make(image, Shell(self._commands, emit, image.spec.env_vars, [held]))
        _note_use(self._root / image.id)
        runner = self._runner_layer(_known_here(ready.python), emit)
        python = Path(VENV, "bin", "python")
        return Built(ready, python, python, cached, tag_of(image.id), runner)

    def _make_or_sweep(self, environment: Path, image: Image, emit: Emit, held: int) -> None:
        remove(environment)  # what a killed build left
        try:
            shell = Shell(self._commands, emit, image.spec.env_vars, [held])
            Maker(shell, self._bytecode).make(environment, image)
        except BaseException:
            remove(environment)
            raise

    def _attach(self, environment: Path, python: Python, emit: Emit) -> None:
        runner = self._runner_layer(python, emit)
        if not layer.is_attached(environment, python, runner):
            with self._locks.hold(environment.name, "Waiting for another that prepares this image", emit):
                layer.attach(environment, python, runner)

    def _runner_layer(self, python: Python, emit: Emit) -> Path:
        if python.minor not in self._layers:
            target = self._root / layer.layer_name(python)
            busy = f"Treadle's runner for Python {python.minor} is being prepared by another: waiting for it"
            with self._locks.hold(target.name, busy, emit) as held:
                if not target.exists():
                    shell = Shell(self._commands, emit, held=[held])
                    with layer.drafted(target, python, partial(self._fetch, python, shell)) as draft:
                        if python.path:
                            compile_now(draft, python.path, shell)
            self._layers[python.minor] = target
        return self._layers[python.minor]

    def _fetch(self, python: Python, shell: Shell, names: list[str], target: Path) -> None:
        shell.emit(f"Installing Treadle's runner for Python {python.minor}")
        of = ["--python", python.path] if python.path else ["--python-version", python.minor]
        argv = ["pip", "install", "--target", str(target), *of, *names]
        what = f"the runner's libraries ({', '.join(names)}) could not be installed for Python {python.minor}"
        packages.uv_or_fail(shell, argv, what, self._root)
