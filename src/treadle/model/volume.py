"""A volume: a folder that containers share and that outlives them, and where they find it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import msgspec

from treadle.model.errors import InvalidOption

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MAX_PATH = 1024  # characters
MAX_VOLUMES = 64  # of one queue: each path is held against all others
VOLUMES = "/volumes"  # where a container at isolation level 2 finds those with a relative path, too
UNQUOTED = frozenset(",\"")  # an engine's command reads them as the end of a path
# Nothing is mounted over or below these: they are the machine's, the kernel's, or the container's own.
SYSTEM = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/opt", "/proc", "/run", "/sbin",
    "/sys", "/tmp", "/usr", "/var/run", "/var/tmp",  # noqa: S108
)  # fmt: skip


class Volume(msgspec.Struct, frozen=True):
    workspace_id: int
    name: str
    created_at: float


class VolumeMount(msgspec.Struct, frozen=True):
    """Which volume a container finds where: below its working directory, or at an absolute path."""

    name: str
    mount_path: str  # as `check_mount_path` gives it back

    @property
    def is_absolute(self) -> bool:
        return self.mount_path.startswith("/")


def check_volume_name(name: object) -> str:
    """A volume's name: letters, digits, `.`, `_`, `-`; it is the name of a folder."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        allowed = "1-64 letters, digits, '.', '_' or '-', first a letter or digit"
        raise InvalidOption(f"Volume name {name!r} is not allowed.", f"Allowed: {allowed}.")
    return name


def check_mount_path(path: object) -> str:
    """A mount path without `.` and doubled slashes: "./weights/" is "weights"."""
    if isinstance(path, str) and 0 < len(path) <= MAX_PATH and _is_plain(path) and not path.startswith("//"):
        pure = PurePosixPath(path)
        if ".." not in pure.parts and pure.parts not in ((), ("/",)) and not _below(str(pure), SYSTEM):
            return str(pure)
    allowed = "a path below the working directory such as './weights', or an absolute one that is not the system's"
    never = f"at most {MAX_PATH} characters; no '..', no comma, no double quote and no control character"
    raise InvalidOption(f"mount_path={path!r} is not allowed.", f"Allowed: {allowed}; {never}.")


def _is_plain(path: str) -> bool:
    return path.isprintable() and UNQUOTED.isdisjoint(path)


def check_mounts(mounts: Sequence[VolumeMount]) -> None:
    """Each name and path for itself, and no path twice or inside another."""
    for number, mount in enumerate(mounts):
        check_volume_name(mount.name)
        if check_mount_path(mount.mount_path) != mount.mount_path:
            raise InvalidOption(f"mount_path={mount.mount_path!r} is not allowed.", "Write it without '.' and '//'.")
        for other in mounts[:number]:
            if _below(mount.mount_path, [other.mount_path]) or _below(other.mount_path, [mount.mount_path]):
                what = f"mount_path={mount.mount_path!r} is not apart from {other.mount_path!r}."
                raise InvalidOption(what, "Give each volume a path of its own, none inside another.")


def _below(path: str, others: Sequence[str]) -> bool:
    return any(path == other or path.startswith(f"{other}/") for other in others)
