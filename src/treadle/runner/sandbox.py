"""Shuts off the template, and with it the children: the isolation levels as a process enters them itself."""

from __future__ import annotations

import sys

from treadle.model.container import Isolation
from treadle.model.wire import Sandbox
from treadle.runner import kernel, landlock, namespaces, places


def enter(box: Sandbox) -> None:
    """First half: go where the container lives. At level 2 this returns in another process than was called.

    Raises:
        OSError: this machine does not let it. There is no lesser level to fall back to.
    """
    if box.level == Isolation.NAMESPACES:
        namespaces.enter(box)
    elif box.block_network:
        raise OSError(f"a network can be blocked from level {Isolation.NAMESPACES.value} on")


def close(box: Sandbox) -> None:
    """Second half: give up every right and way out, for good. Files that are open stay open.

    Raises:
        OSError: as above.
    """
    if box.level in (Isolation.PROCESS, Isolation.ENGINE):  # an engine has done it before the first process
        return
    kernel.gain_nothing()
    if box.level == Isolation.LANDLOCK:
        _hold_to_files(box)
    else:
        landlock.keep_within()
    kernel.drop_capabilities()
    kernel.hide_memory(hidden=True)  # the parent believes what the template says: no child may speak through it


def show() -> None:
    """Let the others of the container look at this child, as at any process: debuggers, profilers."""
    if sys.platform == "linux":
        kernel.hide_memory(hidden=False)


def _hold_to_files(box: Sandbox) -> None:
    looked_at = [*places.looked_at(box.environment), "/proc", "/sys"]
    seen = [part for place in looked_at for part in _visible(place, box.hidden)]
    devices = [*places.devices(box.gpu_files), "/dev/ptmx", "/dev/pts", places.SHARED_MEMORY]
    volumes = [mount.source for mount in box.mounts]
    landlock.allow(seen, [*box.writable, *volumes, *box.shared, box.scratch, *devices])


def _visible(place: str, hidden: list[str]) -> list[str]:
    """A place less what is hidden; one that is itself below something hidden was meant."""
    return [place] if places.below(place, hidden) else places.without(place, hidden)
