"""Volumes of a container: their folders are made, and linked to from where its source has its relative paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from treadle.depths import remove
from treadle.model.volume import VOLUMES
from treadle.model.wire import Mount


def lay_out(code: Path, mounts: Sequence[Mount]) -> list[Mount]:
    """Make what is missing, and links below `code`; returns what a root folder of the container's own is to show.

    What the source has at a mount's path is hidden by it, as by any mount: this copy loses it.
    """
    for mount in mounts:
        Path(mount.source).mkdir(parents=True, exist_ok=True, mode=0o700)
    for mount in mounts:
        if not mount.target.startswith("/"):
            _link(code / mount.target, mount.source)
    return [Mount(mount.source, str(Path(VOLUMES, mount.target))) for mount in mounts]


def _link(place: Path, source: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    remove(place)
    place.symlink_to(source, target_is_directory=True)
