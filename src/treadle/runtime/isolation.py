"""Which isolation level containers get here, found out by trying, and what each of them is to enter."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from treadle.depths import remove
from treadle.model.container import Isolation
from treadle.model.deployment import QueueConfig
from treadle.model.errors import InvalidOption
from treadle.model.wire import Mount, Sandbox

CHOICES = {"process": Isolation.PROCESS, "landlock": Isolation.LANDLOCK, "namespaces": Isolation.NAMESPACES}
_ENGINE = "level 3 (engine) is for images with a base image, a Dockerfile or system packages"
_TRIAL_SECONDS = 30.0
# What keeps users other than root from user namespaces, and what to do about it.
_SWITCHES = {
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "1"),
    "/proc/sys/user/max_user_namespaces": ("0", "10000"),
}


class Shield(msgspec.Struct, frozen=True):
    """What is put around each container. `hidden` holds the data folder; `shared` are folders that all may change."""

    level: Isolation = Isolation.PROCESS
    no_higher: str = ""  # why not a higher level
    hidden: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def around(
        self,
        folder: Path,
        config: QueueConfig,
        mounts: Sequence[Mount] = (),
        gpu_files: Sequence[str] = (),
        environment: Path | None = None,
    ) -> Sandbox:
        """What the container with this folder is to enter; makes the folders that it takes.

        `environment`: the folder of its image's interpreter and packages, if it is not the runner's own.
        """
        if self.level == Isolation.PROCESS:
            return Sandbox(block_network=config.block_network)
        scratch, root = scratch_of(folder), folder / "root"
        remove(scratch)
        for made in (scratch, root):
            made.mkdir(parents=True, mode=0o700)
        return Sandbox(
            level=self.level,
            writable=[str(folder / "code"), str(folder / "home")],
            shared=list(self.shared),
            mounts=list(mounts),
            hidden=list(self.hidden),
            scratch=str(scratch),
            root=str(root),
            block_network=config.block_network,
            gpu_files=list(gpu_files),
            environment=str(environment or ""),
        )


def scratch_of(folder: Path) -> Path:
    """Where temporary files of a container are. Not in its folder: sockets are made in there, whose paths may have
    107 bytes (unix(7)), and its id alone has 55."""
    return folder.parents[1] / "tmp" / folder.name[-8:]


def probe(choice: str, data: Path, shared: str = "", python: str = sys.executable) -> Shield:
    """The highest level that works here, or the one asked for. `shared` is a list of folders with colons.

    Raises:
        InvalidOption: the one asked for does not exist or does not work here, or a shared folder is not one.
    """
    if choice not in ("auto", *CHOICES):
        raise InvalidOption(f"TREADLE_ISOLATION={choice!r} is not allowed.", f"Allowed: auto, {', '.join(CHOICES)}.")
    troubles = {Isolation.PROCESS: ""} | tried(python)
    level = CHOICES[choice] if choice in CHOICES else max(one for one, trouble in troubles.items() if not trouble)
    if troubles[level]:
        raise InvalidOption(
            f"TREADLE_ISOLATION={choice} does not work on this machine: {troubles[level]}.",
            "Set TREADLE_ISOLATION=auto; `treadle doctor` tells what this machine gives.",
        )
    names = dict.fromkeys((str(data), str(data.resolve())))  # it may be reached through a link
    hidden = (*names, *(_private_files(Path("/etc")) if os.geteuid() == 0 else ()))
    return Shield(level, _why_not_more(level, choice, troubles), hidden, _shared(shared, data, level))


def tried(python: str = sys.executable) -> dict[Isolation, str]:
    """By level why it does not work here, "" where it does."""
    argv = [python, "-P", "-m", "treadle.runner.trial"]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_TRIAL_SECONDS, stdin=subprocess.DEVNULL, check=True)
        found = msgspec.json.decode(done.stdout, type=dict[str, str])
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        found = dict.fromkeys(("1", "2"), f"the trial failed: {error}")
    return {Isolation(int(level)): trouble for level, trouble in found.items()}


def _why_not_more(level: Isolation, choice: str, troubles: dict[Isolation, str]) -> str:
    above = level + 1
    if above not in troubles:
        return _ENGINE
    if not troubles[Isolation(above)]:
        return f"TREADLE_ISOLATION={choice}"
    told = [f"level {one.value} ({one.name.lower()}): {why}" for one, why in troubles.items() if one > level and why]
    return "; ".join(told + _switches())


def _switches() -> list[str]:
    found = []
    for path, (off, on) in _SWITCHES.items():
        file = Path(path)
        if file.exists() and file.read_text().strip() == off:
            name = ".".join(file.relative_to("/proc/sys").parts)
            found.append(f"user namespaces are switched off: `sysctl {name}={on}` as root allows them")
    return found


def _shared(given: str, data: Path, level: Isolation) -> tuple[str, ...]:
    folders = [Path(one) for one in given.split(":") if one]
    for folder in folders:
        if not folder.is_absolute() or not folder.is_dir():
            raise InvalidOption(f"TREADLE_SHARED_FOLDERS: {folder} is not there.", "Name folders by absolute paths.")
        if level == Isolation.LANDLOCK and data.is_relative_to(folder):
            raise InvalidOption(
                f"TREADLE_SHARED_FOLDERS: {folder} holds the data folder {data}, which must not be shared.",
                "Share a folder beside it.",
            )
    return tuple(str(folder.resolve()) for folder in folders)


def _private_files(folder: Path) -> list[str]:
    """What below a folder is not for everybody to read: root's container would be let in by its owner's right."""
    found: list[str] = []
    for entry in os.scandir(folder):
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            continue
        wanted = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        if mode & wanted != wanted:
            found.append(entry.path)
        elif stat.S_ISDIR(mode):
            found += _private_files(Path(entry.path))
    return found
