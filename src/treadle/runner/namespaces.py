"""Level 2: a process tree of its own with a root folder of its own, made by the forked process itself.

What `bwrap` would do before running a program, for a process that is already loaded: user_namespaces(7),
pid_namespaces(7), mount_namespaces(7). As root the mounts are made with root's own rights and the user namespace
comes last, so that no right over them is left inside; anybody else needs the user namespace to make them.
"""

# ruff: noqa: PTH102, PTH103, PTH110, PTH112, PTH114, PTH115, PTH120, PTH211 - every start waits for this

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from treadle.model.wire import Mount, Sandbox
from treadle.runner import kernel, places

_SAFE = kernel.READ_ONLY | kernel.NO_SUID | kernel.NO_DEVICES
_STANDARD_LINKS = {
    "/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2", "/dev/ptmx": "pts/ptmx", "/var/run": "/run",
}  # fmt: skip
# Of /proc and /sys: what root's files there would let a process without any right change or learn about the machine.
_FROZEN = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
_MASKED = (
    "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
    "/proc/timer_list", "/sys/firmware", "/sys/fs/cgroup", "/sys/kernel/debug", "/sys/kernel/security",
    "/sys/kernel/tracing",
)  # fmt: skip


def enter(box: Sandbox) -> None:
    """Go in. Returns in a new process, the first of its pid namespace; the one that called ends here."""
    root_user = os.geteuid() == 0
    if not root_user:
        _own_users()
    network = kernel.NEW_NET if box.block_network else 0
    kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_PIDS | kernel.NEW_IPC | kernel.NEW_UTS | network)
    if network:
        kernel.bring_up_loopback()
    if os.fork():
        os._exit(0)
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)  # the machine's, whose /proc/sys is not frozen
    _Root(box).build()
    if root_user:
        _own_users()
    _no_more_users(proc)
    os.close(proc)


def _own_users() -> None:
    """A user namespace in which this user and group are as they are outside, and there is nobody else."""
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.NEW_USER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(text)


def _no_more_users(proc: int) -> None:
    """No user namespace may be made inside this one: it would hand out rights over namespaces made in it."""
    setting = os.open("sys/user/max_user_namespaces", os.O_WRONLY, dir_fd=proc)
    try:
        os.write(setting, b"0")
    finally:
        os.close(setting)


def _step(folder: int, name: str, target: str) -> int:
    """Open a folder in another one, made if it is not there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
    try:
        return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError:
        raise OSError(f"the volume's path {target} leads over a link or a file: {name}") from None


class _Root:
    """The folder that becomes the root: a file system in memory, with what may be seen bound into it."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self._root = box.root
        self._masks: list[str] = []
        self._made: set[str] = set()  # folders

    def build(self) -> None:
        """What is bound later lies over what was before: a folder below another one comes after it."""
        kernel.mount(None, "/", None, kernel.RECURSIVE | kernel.SLAVE)
        self._memory("", "mode=755")
        box, seen = self._box, places.looked_at(self._box.environment)
        own = [path for path in seen if places.below(path, box.hidden)]
        self._temporary()
        self._devices()
        self._kernel_files()
        self._look(path for path in seen if path not in own)
        for path in box.shared:
            self._bind(path, kernel.NO_SUID | kernel.NO_DEVICES)
        for path in box.hidden:
            self._mask(path)
        self._look(own)
        for path in [*box.writable, *(mount.source for mount in box.mounts)]:
            self._bind(path, kernel.NO_SUID | kernel.NO_DEVICES)
        for mount in box.mounts:
            self._bind_volume(mount)
        for link, end in _STANDARD_LINKS.items():
            if not os.path.lexists(self._root + link):
                os.symlink(end, self._at(link))
        for path in ["", *self._masks]:
            kernel.restrict_mount(self._root + path, _SAFE, below=False)
        kernel.pivot_root(self._root)

    def _at(self, path: str) -> str:
        """Where a path of the new root is now; its parent is there."""
        place = self._root + path
        parent = os.path.dirname(place)
        if parent not in self._made:
            os.makedirs(parent, exist_ok=True)
            self._made.add(parent)
        return place

    def _folder(self, path: str) -> str:
        """The same, for a folder that is to be there."""
        place = self._at(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(place)
        return place

    def _bind(self, path: str, attributes: int, at: str = "") -> None:
        """Have what is at `path` also in the new root, by the same name unless told otherwise."""
        if os.path.isdir(path):
            target = self._folder(at or path)
        elif not os.path.exists(target := self._at(at or path)):
            os.close(os.open(target, os.O_CREAT))
        kernel.mount(path, target, None, kernel.BIND | kernel.RECURSIVE)
        if attributes:
            kernel.restrict_mount(target, attributes)

    def _bind_volume(self, mount: Mount) -> None:
        """Have a volume at its target. Containers may write to what is on the way there, and a link of theirs would
        lead out of this root, which is not the root yet: each part is opened by itself, and none through a link."""
        *way, last = mount.target.strip("/").split("/")
        folder = os.open(self._root, os.O_PATH | os.O_DIRECTORY)
        try:
            for part in way:
                folder, above = _step(folder, part, mount.target), folder
                os.close(above)
            place = _step(folder, last, mount.target)
            kernel.mount(mount.source, f"/proc/self/fd/{place}", None, kernel.BIND | kernel.RECURSIVE)
            os.close(place)
            place = _step(folder, last, mount.target)  # now it is what was mounted
            kernel.restrict_mount(f"/proc/self/fd/{place}", kernel.NO_SUID | kernel.NO_DEVICES)
            os.close(place)
        finally:
            os.close(folder)

    def _memory(self, path: str, options: str, flags: int = kernel.NO_SUID | kernel.NO_DEVICES) -> None:
        kernel.mount("tmpfs", self._root + path, "tmpfs", flags, options)

    def _look(self, paths: Iterable[str]) -> None:
        """Bind what may be read; a link such as /bin stays one, and what a bound folder holds is there already."""
        done: list[str] = []
        for path in sorted(paths):
            if places.below(path, done):
                continue
            done.append(path)
            if path in places.SYSTEM and os.path.islink(path):
                os.symlink(os.readlink(path), self._at(path))
            else:
                self._bind(path, _SAFE)

    def _temporary(self) -> None:
        for at in ("/tmp", "/var/tmp"):  # noqa: S108 -- the container's own
            self._bind(self._box.scratch, kernel.NO_SUID | kernel.NO_DEVICES, at=at)
        self._folder("/run")

    def _mask(self, path: str) -> None:
        """Have an empty folder, or an empty file, over one that can be seen."""
        place = self._root + path
        if os.path.isdir(place):
            self._memory(path, "mode=755")
            self._masks.append(path)
            self._made.clear()  # what was made below is hidden now
        elif os.path.exists(place):
            kernel.mount("/dev/null", place, None, kernel.BIND)

    def _devices(self) -> None:
        for path in places.devices(self._box.gpu_files):
            if os.path.exists(path):
                self._bind(path, 0)
        terminals, flags = self._folder("/dev/pts"), kernel.NO_SUID | kernel.NO_EXEC
        kernel.mount("devpts", terminals, "devpts", flags, "newinstance,ptmxmode=0666,mode=620")
        self._folder(places.SHARED_MEMORY)
        self._memory(places.SHARED_MEMORY, "mode=1777")

    def _kernel_files(self) -> None:
        """A /proc that knows this tree of processes alone, and a /sys to read; masked as container engines do it."""
        flags = kernel.NO_SUID | kernel.NO_DEVICES | kernel.NO_EXEC
        kernel.mount("proc", self._folder("/proc"), "proc", flags)
        self._bind("/sys", _SAFE | kernel.NO_EXEC)
        for path in _FROZEN:
            place = self._root + path
            if os.path.exists(place):
                kernel.mount(place, place, None, kernel.BIND)
                kernel.restrict_mount(place, kernel.READ_ONLY)
        for path in _MASKED:
            self._mask(path)
