"""Lays large memory out in huge pages, so that copying a process costs little: a fork copies a page table entry for
each page, 51 200 for 200 MB in small pages (15 ms), 100 in huge ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from treadle.runner import kernel

HUGE = 2 * 1024**2  # bytes, on x86-64, and on arm64 with pages of 4 KiB
PIECE = 16 * HUGE  # laid out at once
SECONDS = 1.0  # to be spent on it: what remains stays as it is


def lay_out() -> None:
    """Have memory of this process alone that is used nearly whole lie in huge pages, where the kernel has them."""
    deadline = time.monotonic() + SECONDS
    with contextlib.suppress(OSError):  # a kernel before Linux 6.1, or no memory for it
        lines = Path("/proc/self/smaps").read_text().splitlines()
        for start, end in sorted(full(lines), key=_size, reverse=True):
            for piece in range(start, end, PIECE):
                if time.monotonic() > deadline:
                    return
                kernel.collapse(piece, min(PIECE, end - piece))


def full(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """The huge pages in each anonymous mapping that is used nearly whole, by the lines of proc_pid_smaps(5)."""
    start = end = 0
    for line in smaps:
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            permissions, _, _, inode, *name = rest.split()
            private = permissions == "rw-p" and inode == "0" and name in ([], ["[heap]"])
            start, end = (int(one, 16) for one in first.split("-")) if private else (0, 0)
        elif first == "Anonymous:" and int(rest.split()[0]) * 1024 > 0.9 * (end - start):
            inside = -(-start // HUGE) * HUGE, end // HUGE * HUGE
            if inside[0] < inside[1]:
                yield inside


def _size(mapping: tuple[int, int]) -> int:
    return mapping[1] - mapping[0]
