"""System calls that Python has no name for, by ctypes: namespaces, mounts, Landlock's three, capabilities.

Numbers and structures are those of the kernel's own headers (`linux/sched.h`, `mount.h`, `prctl.h`, `capability.h`,
`landlock.h`). Every function raises OSError with what was asked for; all work on the calling thread alone, so the
caller has to be a process of one thread.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

NEW_MOUNTS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
NO_SUID, NO_DEVICES, NO_EXEC, BIND, RECURSIVE, SLAVE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x80000  # MS_*
READ_ONLY = 0x1  # MOUNT_ATTR_*; the three above have the same numbers there
DETACH = 2  # MNT_DETACH

# System calls from number 424 on are the same on every architecture; pivot_root is older than that.
_MOUNT_SETATTR, _CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 442, 444, 445, 446
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION_3 = 0x20080522
_RULE_PATH_BENEATH = 1
_MADV_COLLAPSE = 25

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _path(path: str | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def unshare(flags: int) -> None:
    """Leave these namespaces for new ones; of pids only the next children are in the new one."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    done = _libc.mount(_path(source), _path(target), _path(kind), ctypes.c_ulong(flags), options.encode() or None)
    _check(done, f"mount {source or kind or 'the tree'} on {target}")


def restrict_mount(target: str, attributes: int, *, below: bool = True) -> None:
    """Set attributes on a mount, and on all mounts below it if so wanted (mount_setattr, Linux 5.12)."""
    settings = struct.pack("QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if below else 0
    done = _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, _path(target), flags, settings, ctypes.c_size_t(len(settings)))
    _check(done, f"mount_setattr on {target}")


def pivot_root(folder: str) -> None:
    """Make a mount the root of this process's mount namespace, and have nothing of the old root left in it."""
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"pivot_root has no known number on {platform.machine()}")
    os.chdir(folder)
    _check(_libc.syscall(number, b".", b"."), "pivot_root")  # the old root lies over the new one now
    _check(_libc.umount2(b".", DETACH), "umount of the old root")
    os.chdir("/")


def gain_nothing() -> None:
    """Have no program that this process or its children run give them more than they have (no_new_privs)."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up every capability, and the chance to get one back."""
    for number in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) < 0:
            break  # past the last that this kernel knows, or there are none to give up
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def collapse(start: int, length: int) -> None:
    """Have this memory, whose bounds are those of huge pages, lie in such pages (MADV_COLLAPSE, Linux 6.1)."""
    _check(_libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_COLLAPSE), "madvise")


def hide_memory(hidden: bool) -> None:
    """Whether other processes of this user are kept from this one's memory, files and environment."""
    prctl(_PR_SET_DUMPABLE, 0 if hidden else 1)


def landlock_abi() -> int:
    """The version of Landlock that this kernel has and has not switched off; 0 without."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def landlock_ruleset(files: int, scopes: int) -> int:
    """A file descriptor of a new ruleset: kinds of access to files that it forbids, and scopes (from version 6)."""
    rules = struct.pack("QQQ", files, 0, scopes)[: 24 if scopes else 8]
    return _check(_libc.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0), "landlock_create_ruleset")


def landlock_allow(ruleset: int, path: int, access: int) -> None:
    """Allow these kinds of access below an opened path."""
    rule = struct.pack("=Qi", access, path)
    _check(_libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0), "landlock_add_rule")


def landlock_restrict(ruleset: int) -> None:
    """Hold this process and all it will start to the ruleset, for good."""
    _check(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")


def bring_up_loopback() -> None:
    """In a new network namespace: switch its `lo` on, which has 127.0.0.1 and ::1 then."""
    import fcntl  # noqa: PLC0415 -- these two for the few that have no network
    import socket  # noqa: PLC0415

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name_and_flags = struct.pack("16sh14x", b"lo", 0x1)  # struct ifreq with IFF_UP
        fcntl.ioctl(sock, 0x8914, name_and_flags)  # SIOCSIFFLAGS
