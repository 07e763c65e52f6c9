"""The watchdog: when it looks, whom it kills, and what it takes for memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.conftest import MIB
from runtime.waiting import until
from treadle.runtime import memory, processes
from treadle.runtime.watchdog import CALM, FASTEST, GROWING, STEADY, Watchdog

pytestmark = pytest.mark.process


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has run `code` and waits for a line; killed at the end. The script around it is its runner."""
    program = f"{textwrap.dedent(code)}\nprint('ready', flush=True)\ninput()"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def test_it_looks_again_before_what_is_left_can_be_filled(tmp_path: Path) -> None:
    """At most every millisecond while memory grows, every ten while it does not, and twenty times a second at least."""
    with process("held = b'x' * 2**21"):
        used = sum(memory.resident(pid) for pid in _children())
        calm = Watchdog(tmp_path, used + 1024 * MIB)
        assert calm.tick(os.getpid()) == CALM
        near = Watchdog(tmp_path, used + 40 * MIB)
        assert near.tick(os.getpid()) == pytest.approx(40 * MIB / FASTEST, rel=0.1)
        full = Watchdog(tmp_path, used + MIB)
        assert full.tick(os.getpid()) == GROWING
        asyncio.run(until(lambda: full.tick(os.getpid()) == STEADY))  # it may yet be on its way to input()


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def test_it_goes_on_counting_where_the_one_before_it_ended(tmp_path: Path) -> None:
    (tmp_path / "oom").write_text("oom_kill 2\n")
    with process("") as child:
        Watchdog(tmp_path, 1024).tick(os.getpid())
        assert child.wait() == -signal.SIGKILL
        assert (tmp_path / "oom").read_text() == "oom_kill 3\n"
        assert int((tmp_path / "peak").read_text()) > 1024


FAMILY = """
    import os, signal
    held = bytearray(os.urandom(2**20) * 60)  # 60 MiB, in the template
    told, tell = os.pipe()
    for _ in range(3):
        if os.fork() == 0:
            WRITE
            os.write(tell, b"1")
            signal.pause()
    for _ in range(3):
        os.read(told, 1)
"""


def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    """A model loaded before the fork: four processes of 60 MiB each are within 128 MiB."""
    watchdog = Watchdog(tmp_path, 128 * MIB)
    with process(FAMILY.replace("WRITE", "sum(held[::4096])")) as template:
        for _ in range(3):
            watchdog.tick(os.getpid())
        assert template.poll() is None
        assert (tmp_path / "oom").read_text() == "oom_kill 0\n"


def test_memory_that_is_shared_no_more_counts_for_each(tmp_path: Path) -> None:
    """As soon as each has written to its copy, one of them is killed, and not the one they were forked from."""
    watchdog = Watchdog(tmp_path, 128 * MIB)
    with process(FAMILY.replace("WRITE", "held[::4096] = bytes(len(held[::4096]))")) as template:
        watchdog.tick(os.getpid())
        assert (tmp_path / "oom").read_text() == "oom_kill 1\n"
        assert template.poll() is None


def test_a_file_in_dev_shm_counts_mapped_or_not(tmp_path: Path) -> None:
    """Also one that was unlinked: it lives for as long as a process has it open."""
    watchdog = Watchdog(tmp_path, 96 * MIB)
    name = f"/dev/shm/treadle-test-{os.getpid()}"
    with process(f"""
        import os
        file = open({name!r}, "wb")
        os.unlink({name!r})
        for _ in range(120):
            file.write(b"x" * 2**20)
        file.flush()
    """) as child:
        watchdog.tick(os.getpid())
        assert child.wait() == -signal.SIGKILL
        assert int((tmp_path / "peak").read_text()) > 120 * MIB


def test_a_memory_file_system_that_only_the_container_sees_counts(tmp_path: Path) -> None:
    """As bubblewrap makes them for /tmp and /dev/shm; needs unshare(1) and the right to use it."""
    unshare = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    fill = "mount -t tmpfs none /mnt && head -c 120M /dev/zero > /mnt/file && echo ready && exec sleep 60"
    watchdog = Watchdog(tmp_path, 96 * MIB)
    child = subprocess.Popen([*unshare, "sh", "-c", fill], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        watchdog.tick(os.getpid())
        assert child.wait() == -signal.SIGKILL
    finally:
        child.kill()
        child.communicate()


def test_too_many_processes_are_killed(tmp_path: Path) -> None:
    """Where no group counts them: all but the first, which is the template."""
    watchdog = Watchdog(tmp_path, 4096 * MIB)
    with process("""
        import os, signal
        for _ in range(1030):
            if os.fork() == 0:
                signal.pause()
    """) as template:
        watchdog.tick(os.getpid())
        assert template.poll() is None
        children = Path(f"/proc/{template.pid}/task/{template.pid}/children").read_text().split()
        assert len(children) == 1030
        asyncio.run(until(lambda: not any(processes.identity(int(pid)) for pid in children)))
