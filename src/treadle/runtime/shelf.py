"""The images that are on this machine: what they are, what they take, which are removed, what killed builds left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec
import psutil

from treadle.model.deployment import Image, ImageSpec
from treadle.model.rooted import needs_engine
from treadle.model.wire import ImageHere
from treadle.runtime import processes
from treadle.runtime.bytecode import Bytecode
from treadle.runtime.commands import MARK
from treadle.runtime.engine import find
from treadle.runtime.engine_image import BUILD_LABEL, BUILD_NAME, MAKING, tag_of
from treadle.runtime.environment import READY
from treadle.runtime.layer import DRAFT, RUNNER, attached_layers
from treadle.runtime.locks import Locks
from treadle.runtime.seal import GONE, Weight, remove, weigh


class Shelf:
    """Looks after the folder of all images. `locks` are those that builds hold."""

    def __init__(self, root: Path, locks: Locks, bytecode: Bytecode) -> None:
        self._root = root
        self._locks = locks
        self._bytecode = bytecode

    def images(self) -> list[ImageHere]:
        """Every image that is ready, the last used first."""
        found = [here for folder in self._environments() if (here := _read(folder)) is not None]
        return sorted(found, key=lambda here: here.used_at, reverse=True)

    def prune(self, keep: Collection[str], now: float, *, dry_run: bool) -> list[ImageHere]:
        """Remove (or only name) images that are not among `keep`, not being built, and not used since `now`.

        With them go layers of earlier Treadles that no image has any more. Answers what was removed.
        """
        unwanted = [here for here in self.images() if here.id not in keep]
        removed = [here for here in unwanted if self._may_go(self._root / here.id, now, dry_run=dry_run)]
        gone = {here.id for here in removed}
        for folder in self._unused_layers(gone):
            weight = weigh(folder)
            removed.append(ImageHere(folder.name, "", (), size=weight.size, freed=weight.own))
            if not dry_run:
                remove(folder)
        return removed

    def _may_go(self, environment: Path, now: float, *, dry_run: bool) -> bool:
        with self._locks.try_hold(environment.name) as free:
            if not free or _used_at(environment) > now:
                return False
            if not dry_run:
                here = _read(environment)
                if here is not None and here.base_image:
                    _remove_of_engine(here.id)
                remove(environment)
            return True

    def _unused_layers(self, gone: Collection[str]) -> Iterator[Path]:
        """Layers that no image has which stays."""
        staying = [folder for folder in self._environments() if folder.name not in gone]
        attached = {layer for folder in staying for layer in attached_layers(folder)}
        for folder in sorted(self._root.glob(f"{RUNNER}*")):
            if folder not in attached:
                with self._locks.try_hold(folder.name) as free:
                    if free:
                        yield folder

    def sweep(self) -> list[str]:
        """After a start: end commands of builds whose agent is dead, remove what they left, and go on compiling.

        Answers the names of what was removed.
        """
        _end_orphans()
        _end_orphans_of_engine()
        for folder in self._root.glob(f"{MAKING}*"):
            if processes.identity(int(folder.name.removeprefix(MAKING).partition("-")[0])) is None:
                remove(folder)
        removed = []
        for folder in [*self._environments(), *self._root.glob(f"{DRAFT}*"), *self._root.glob(f"{GONE}*")]:
            if (folder / READY).exists():
                self._bytecode.later(folder)
                continue
            with self._locks.try_hold(folder.name.removeprefix(DRAFT)) as free:
                if free and not (folder / READY).exists():
                    remove(folder)
                    removed.append(folder.name)
        return removed

    def _environments(self) -> list[Path]:
        names = [entry.name for entry in os.scandir(self._root) if entry.is_dir(follow_symlinks=False)]
        return [self._root / name for name in sorted(names) if not name.startswith((".", RUNNER))]


def _read(environment: Path) -> ImageHere | None:
    """What is known of an environment; None when it is none, or goes away meanwhile."""
    try:
        image = msgspec.msgpack.decode((environment / READY).read_bytes(), type=Image)
        used_at = _used_at(environment)
    except (OSError, msgspec.MsgspecError):
        return None
    weight = _weigh_of_engine(image.id) if needs_engine(image.spec) else weigh(environment)
    return ImageHere(
        id=image.id,
        python=image.python,
        packages=image.spec.python_packages,
        base_image=_base(image.spec),
        size=weight.size,
        freed=weight.own,
        built_at=image.created_at,
        used_at=used_at,
    )


def _used_at(environment: Path) -> float:
    try:
        return (environment / READY).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _end_orphans() -> None:
    """Kill what an agent had started for a build before it was killed itself."""
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            builder, _, identity = psutil.Process(pid).environ().get(MARK, "").partition(":")
            if identity and processes.identity(int(builder)) != identity:
                processes.kill([pid])


def _base(spec: ImageSpec) -> str:
    """From what an image of an engine was made; "" for an environment."""
    return spec.base_image or ("a Dockerfile" if spec.dockerfile else "its Python's") if needs_engine(spec) else ""


def _weigh_of_engine(image_id: str) -> Weight:
    """An engine counts what an image has in common with its base as part of both."""
    engine, _ = find()
    if engine is None:
        return Weight()

    def told(name: str, what: str) -> str:
        return engine.ask("image", "inspect", "--format", what, name)

    size = int(told(tag_of(image_id), "{{.Size}}") or 0)
    return Weight(size, size - int(told(told(tag_of(image_id), "{{.Parent}}") or "-", "{{.Size}}") or 0))


def _remove_of_engine(image_id: str) -> None:
    engine, _ = find()
    if engine is not None:
        engine.ask("rmi", "--force", tag_of(image_id))


def _end_orphans_of_engine() -> None:
    """Remove containers in which images were made, and whose agent is dead."""
    engine, _ = find()
    if engine is None:
        return
    columns = '{{.Names}} {{.Label "' + BUILD_LABEL + '"}}'
    for line in engine.ask("ps", "--all", "--filter", f"label={BUILD_LABEL}", "--format", columns).splitlines():
        name, _, mark = line.partition(" ")
        builder, _, identity = mark.partition(":")
        if name.startswith(BUILD_NAME) and builder.isdigit() and processes.identity(int(builder)) != identity:
            engine.ask("rm", "--force", name)
