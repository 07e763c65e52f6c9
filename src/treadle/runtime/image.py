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
from treadle.model.errors import BuildFailed
from treadle.runtime import layer, packages
from treadle.runtime.bytecode import Bytecode, compile_now
from treadle.runtime.commands import Commands, Emit, Shell
from treadle.runtime.environment import READY, Maker, is_ready, python_of
from treadle.runtime.locks import Locks
from treadle.runtime.needs import check_environment_is_enough
from treadle.runtime.python import Python, find_python
from treadle.runtime.seal import remove
from treadle.runtime.shelf import Shelf


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
            return is_ready(self._root / image.id) or bool(find_python(image.python))
        except BuildFailed:
            return False

    def stop(self) -> None:
        """Kill builds in progress; they and later ones fail."""
        self._commands.stop()

    def resolve(self, spec: ImageSpec, emit: Emit) -> Image:
        """Fix the Python version and every package by version and hash. No packages: nothing is asked of anyone."""
        check_environment_is_enough(spec)
        python = find_python(spec.python_version)
        wanted = spec.python_packages
        lock = packages.lock(Shell(self._commands, emit, spec.env_vars), wanted, python) if wanted else ""
        order = [spec.installed, wanted] if spec.installed else []
        parts = [python.version, sysconfig.get_platform(), lock, spec.commands, sorted(spec.env_vars.items()), *order]
        image_id = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]
        return Image(image_id, spec_digest(spec), spec, python.version, lock, time.time())

    def ensure(self, image: Image, emit: Emit) -> Built:
        """The environment of a resolved image, built now if it is not there."""
        environment = self._root / image.id
        ready = Built(image, python_of(environment), cached=is_ready(environment))
        if not ready.cached:
            busy = "This image is being built by another: waiting for it"
            with self._locks.hold(image.id, busy, emit) as held:
                ready = msgspec.structs.replace(ready, cached=is_ready(environment))  # another may have built it
                if not ready.cached:
                    self._make_or_sweep(environment, image, emit, held)
        now = time.time_ns()
        os.utime(environment / READY, ns=(now, now))  # when it was last used
        self._bytecode.later(environment)
        self._attach(environment, Python(image.python, str(ready.python)), emit)
        return ready

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
                        compile_now(draft, python.path, shell)
            self._layers[python.minor] = target
        return self._layers[python.minor]

    def _fetch(self, python: Python, shell: Shell, names: list[str], target: Path) -> None:
        shell.emit(f"Installing Treadle's runner for Python {python.minor}")
        argv = ["pip", "install", "--target", str(target), "--python", python.path, *names]
        what = f"the runner's libraries ({', '.join(names)}) could not be installed for Python {python.minor}"
        packages.uv_or_fail(shell, argv, what, self._root)
