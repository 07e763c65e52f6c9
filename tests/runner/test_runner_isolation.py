"""What the children of a shut-off runner cannot do, and what they can as ever."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from treadle.model.container import Isolation
from treadle.model.wire import Finished, LoadFailed, Ready
from treadle.runner import landlock

from .boxes import Box, needs, sandbox
from .link_server import Server, wait_until
from .running import Runner, gone

pytestmark = pytest.mark.process

REFUSED = ("PermissionError", "OSError", "FileNotFoundError")  # OSError: on a file system that is read-only
LANDLOCK, NAMESPACES = Isolation.LANDLOCK, Isolation.NAMESPACES
BOTH = pytest.mark.parametrize(
    "level", [pytest.param(level, marks=needs(level), id=level.name.lower()) for level in (LANDLOCK, NAMESPACES)]
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The server's data folder, with what nobody in a container may see."""
    data = tmp_path / "data"
    (data / "agent" / "containers" / "other" / "code").mkdir(parents=True)
    for name in ("credentials.toml", "treadle.db", "agent/containers/other/code/app.py"):
        (data / name).write_text("secret")
    return data


@pytest.fixture
def level() -> Isolation:
    """Of the tests that are not for both levels."""
    return NAMESPACES


@pytest.fixture
def box(
    level: Isolation, runner: Runner, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Box]:
    """A container at the level of the test. As the runtime does, level 1 is told of a temporary folder by variable."""
    if level == NAMESPACES:
        yield Box(runner, tmp_path, level, hidden=[str(data)])
        return
    with TemporaryDirectory(prefix="box-") as scratch:
        monkeypatch.setenv("TMPDIR", scratch)
        yield Box(runner, tmp_path, level, hidden=[str(data)], scratch=scratch)
        runner.end()


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the machine, with a secret in its environment.

    Popen answers when exec has closed its pipe; Linux gives the process its new name a moment later.
    """
    process = subprocess.Popen(["sleep", "600"], env={"SECRET": "neighbour's secret"})
    comm = Path(f"/proc/{process.pid}/comm")
    wait_until(lambda: comm.read_text() == "sleep\n", "the neighbour's name", 30)
    yield process
    process.kill()
    process.wait()


# files


@BOTH
@pytest.mark.parametrize("name", ["credentials.toml", "treadle.db", "agent/containers/other/code/app.py"])
def test_the_data_folder_is_unreachable(box: Box, data: Path, level: Isolation, name: str) -> None:
    """Neither the server's files nor another container's code can be read, written, cut off or removed."""
    file = str(data / name)
    for attempt in ("open(FILE).read()", "open(FILE, 'w')", "os.truncate(FILE, 0)", "os.unlink(FILE)"):
        assert box.refusal(attempt, FILE=file) in REFUSED
    assert Path(file).read_text() == "secret"


@BOTH
def test_nothing_but_its_own_folders_can_be_written(box: Box, level: Isolation, tmp_path: Path) -> None:
    """The system's folders, the image, the home of the user and the root are closed."""
    folders = ["/usr", "/etc", "/opt", "/", "/proc/sys/kernel", sys.prefix, str(Path.home()), str(tmp_path.parent)]
    for folder in folders:
        made = str(Path(folder) / "made-in-a-container")
        private = made.startswith("/tmp/") and folder != sys.prefix  # which is there to be read, wherever it lies
        if level == LANDLOCK or not private:
            assert box.refusal("Path(MADE).write_text('x')", MADE=made) in REFUSED
        else:  # below the container's own /tmp
            box.run("Path(MADE).write_text('x')", MADE=made)
        assert not Path(made).exists()


@BOTH
def test_settings_of_the_kernel_cannot_be_changed(box: Box, level: Isolation) -> None:
    """Also root's files in /proc, which its owner may write without any capability."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    assert box.refusal("Path('/proc/sys/kernel/core_pattern').write_text('|/bin/true')") in REFUSED
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


@BOTH
@pytest.mark.skipif(os.geteuid() != 0, reason="only root's containers would be let in")
def test_what_only_root_may_read_in_etc_is_hidden(runner: Runner, tmp_path: Path, level: Isolation) -> None:
    """The files that the agent found not to be for everybody."""
    box = Box(runner, tmp_path, level, hidden=["/etc/shadow", "/etc/ssl/private"])
    shadow = box.run("""
        try:
            return Path('/etc/shadow').read_text()
        except PermissionError:
            return ''
    """)
    assert shadow == ""
    assert box.run("return len(Path('/etc/passwd').read_text())") > 0


@needs(NAMESPACES)
def test_the_root_holds_what_is_needed_and_no_more(box: Box) -> None:
    """No home of anybody, no files of services, an empty folder for temporary files."""
    seen = box.run("return os.listdir('/')")
    assert {"usr", "etc", "proc", "sys", "dev", "tmp", "run"} <= set(seen)
    assert not {"boot", "mnt", "media", "srv"} & set(seen)
    assert box.run("return os.listdir('/run')") == []
    assert box.run("return sorted(os.listdir('/dev/shm'))") == []


@needs(NAMESPACES)
def test_temporary_files_are_private_and_gone_with_the_container(box: Box, tmp_path: Path) -> None:
    """/tmp is a folder of the container's own on the machine's disk."""
    box.run("Path('/tmp/mine').write_text('x')")
    assert (tmp_path / "tmp" / "mine").read_text() == "x"
    assert not Path("/tmp/mine").exists()


@needs(NAMESPACES)
def test_what_it_imports_from_may_lie_below_tmp(
    runner: Runner, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container's own /tmp does not hide an image, a Python or packages that are there."""
    packages = tmp_path_factory.mktemp("packages")
    (packages / "from_tmp.py").write_text("WORD = 'found'")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    box = Box(runner, tmp_path, NAMESPACES)
    assert box.run("import from_tmp; return from_tmp.WORD") == "found"
    assert box.refusal("Path(FILE).write_text('x')", FILE=str(packages / "from_tmp.py")) == "OSError"


@BOTH
def test_a_shared_folder_may_be_written(
    runner: Runner, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, level: Isolation
) -> None:
    """One that the operator has named is there under its own name."""
    shared = tmp_path_factory.mktemp("shared")
    box = Box(runner, tmp_path, level, shared=[str(shared)])
    box.run("Path(FOLDER, 'file').write_text('x')", FOLDER=str(shared))
    assert (shared / "file").read_text() == "x"


@BOTH
def test_of_the_gpus_only_its_own_can_be_opened(
    runner: Runner, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, level: Isolation
) -> None:
    """The files of all others are closed, or not there. These are pretended, by a device where one can be made."""
    folder = tmp_path_factory.mktemp("dev")
    own, other = str(folder / "nvidia3"), str(folder / "nvidia0")
    for path in (own, other):
        if os.geteuid() == 0:
            os.mknod(path, stat.S_IFCHR | 0o666, Path("/dev/zero").stat().st_rdev)
        else:
            Path(path).write_bytes(bytes(4))
    box = Box(runner, tmp_path, level, gpu_files=[own])
    assert box.run("return open(FILE, 'rb+', buffering=0).read(4).hex()", FILE=own) == "00000000"
    assert box.refusal("open(FILE, 'rb', buffering=0).read(4)", FILE=other) in REFUSED


@BOTH
def test_no_open_file_leads_out(box: Box, level: Isolation) -> None:
    """A child inherits its streams, its socket and its pipe, and no folder: from one it could go on to any file."""
    code = """
        import stat
        kinds = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                kinds[name] = stat.S_IFMT(os.fstat(int(name)).st_mode)
            except OSError:
                pass  # the listing itself
        return [name for name, kind in kinds.items() if kind == stat.S_IFDIR]
    """
    assert box.run(code) == []


# processes


@needs(NAMESPACES)
def test_no_process_of_the_machine_can_be_seen(box: Box, neighbour: subprocess.Popen[bytes]) -> None:
    """/proc shows the template and the child; the numbers of others mean nothing."""
    assert sorted(map(int, box.run("return [n for n in os.listdir('/proc') if n.isdigit()]"))) == [1, 2]
    assert box.refusal("os.kill(PID, 0)", PID=neighbour.pid) == "ProcessLookupError"
    assert box.refusal("Path(f'/proc/{PID}/environ').read_text()", PID=neighbour.pid) == "FileNotFoundError"


@needs(LANDLOCK)
@pytest.mark.parametrize("level", [LANDLOCK])
def test_at_level_1_processes_are_seen_but_not_their_environment(
    box: Box, neighbour: subprocess.Popen[bytes], level: Isolation
) -> None:
    """Landlock lets nobody look into a process outside of it, nor (since Linux 6.12) send it a signal."""
    assert box.run("return Path(f'/proc/{PID}/comm').read_text()", PID=neighbour.pid) == "sleep\n"
    for part in ("environ", "maps", "mem", "root/etc/hostname"):
        assert box.refusal(f"open(f'/proc/{{PID}}/{part}').read(1)", PID=neighbour.pid) == "PermissionError"
    if landlock.scopes():
        assert box.refusal("os.kill(PID, 9)", PID=neighbour.pid) == "PermissionError"
        assert neighbour.poll() is None


@BOTH
def test_the_template_cannot_be_looked_into(box: Box, level: Isolation) -> None:
    """It speaks for its children to the parent: a child that could use its socket would speak for others."""
    assert box.refusal("os.readlink(f'/proc/{os.getppid()}/fd/1')") == "PermissionError"
    for part in ("environ", "mem", "maps"):
        assert box.refusal(f"open(f'/proc/{{os.getppid()}}/{part}').read(1)") == "PermissionError"


@BOTH
@pytest.mark.parametrize(
    "call",
    [
        "libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)",
        "libc.umount2(b'/proc', 2)",
        "libc.unshare(0x00020000)",  # mounts
        "libc.chroot(b'/tmp')",
        "libc.sethostname(b'mine', 4)",
        "libc.ptrace(16, os.getppid(), None, None)",  # PTRACE_ATTACH to the template
        "libc.setns(os.open('/proc/self/ns/pid', os.O_RDONLY), 0)",
        "libc.reboot(0)",
    ],
)
def test_rights_over_the_system_are_gone(box: Box, level: Isolation, call: str) -> None:
    """Whatever user runs the agent: no mount, no namespace, no debugger on the template."""
    assert box.run(f"import ctypes; libc = ctypes.CDLL(None); return {call}") == -1


@needs(NAMESPACES)
def test_no_user_namespace_can_be_made_inside(box: Box) -> None:
    """In one of its own a process would get back all rights over what else it makes there."""
    assert box.run("import ctypes; return ctypes.CDLL(None).unshare(0x10000000)") == -1


@BOTH
def test_a_program_with_the_mark_of_its_owner_gives_no_rights(box: Box, level: Isolation) -> None:
    """no_new_privs and empty capability sets, the bounding one included."""
    status = dict(line.split(":\t", 1) for line in box.run("return Path('/proc/self/status').read_text()").splitlines())
    assert status["NoNewPrivs"] == "1"
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
    assert int(status["CapBnd"], 16) == 0 or os.geteuid() != 0


# sockets


@BOTH
def test_abstract_sockets_of_the_machine_cannot_be_reached(box: Box, level: Isolation) -> None:
    """They belong to the network, which is shared; Landlock keeps them apart since Linux 6.12."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0treadle-test-" + os.urandom(4).hex())
        listener.listen()
        name = listener.getsockname()[1:].decode()
        assert box.refusal("import socket; socket.socket(socket.AF_UNIX).connect('\\0' + NAME)", NAME=name) in (
            "PermissionError", "ConnectionRefusedError",
        )  # fmt: skip


@needs(NAMESPACES)
def test_sockets_of_services_are_not_there(box: Box, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A socket in the file system is a file that cannot be seen."""
    path = str(tmp_path_factory.mktemp("s") / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert box.refusal("import socket; socket.socket(socket.AF_UNIX).connect(PATH)", PATH=path) == "FileNotFoundError"


# what works as ever


@BOTH
@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("import subprocess; return subprocess.check_output(['/bin/sh', '-c', 'echo ok'], text=True)", "ok\n"),
        ("import tempfile; f = tempfile.NamedTemporaryFile(); f.write(b'ok'); f.flush(); return open(f.name).read()", "ok"),
        ("Path('made').write_text('ok'); Path('made').rename('moved'); return Path('moved').read_text()", "ok"),
        ("Path('/dev/null').write_text('x'); return len(Path('/dev/urandom').open('rb').read(8))", 8),
        ("import socket; return socket.create_connection(('127.0.0.1', PORT), 5).getpeername()[1] == PORT", True),
        ("import ssl, json, sqlite3, ctypes, decimal; return sqlite3.connect(':memory:').execute('select 1').fetchone()", [1]),
        ("import multiprocessing as m; return m.get_context('fork').Pool(2).map(abs, [-1, -2])", [1, 2]),
        ("import multiprocessing as m; return m.Manager().list([1, 2])[1]", 2),
        ("import multiprocessing as m; return m.get_context('spawn').Pool(1).map(abs, [-3])", [3]),
        ("from multiprocessing.shared_memory import SharedMemory as S\ns = S(create=True, size=9)\n"
         "s.buf[0] = 7; v = s.buf[0]; s.close(); s.unlink(); return v", 7),
        ("import threading; t = threading.Thread(target=print); t.start(); t.join(); return t.is_alive()", False),
        ("import pty; a, b = pty.openpty(); return os.isatty(b)", True),
        ("import getpass, pwd; return pwd.getpwuid(os.getuid()).pw_uid == os.getuid()", True),
        ("return os.getcwd() == os.path.dirname(os.path.abspath('app.py'))", True),
        ("return os.cpu_count() > 0 and int(Path('/proc/self/oom_score_adj').read_text())", 500),
    ],
)  # fmt: skip
def test_ordinary_things_work(box: Box, server: Server, level: Isolation, code: str, value: object) -> None:
    """Programs, processes, temporary files, shared memory, threads, terminals, its own folder, the network."""
    assert box.run(code, PORT=server.port) == value


@needs(NAMESPACES)
def test_ptrace_of_its_own_children_works(box: Box) -> None:
    """Debuggers and profilers look at what they have started."""
    assert box.run("""
        import ctypes, subprocess
        child = subprocess.Popen(["sleep", "60"])
        done = ctypes.CDLL(None).ptrace(16, child.pid, None, None)
        child.kill()
        return done
    """) == 0


# life and death


@BOTH
def test_the_level_is_told_in_the_greeting(box: Box, level: Isolation) -> None:
    """Hello carries what was entered."""
    assert box.link.hello.isolation == level


@BOTH
def test_when_the_runner_is_killed_all_are_gone_at_once(box: Box, runner: Runner, level: Isolation) -> None:
    """Template, child, and what the child has started in a session of its own."""
    box.run("import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)")
    tree = runner.tree()
    assert len(tree) == 3
    runner.process.kill()
    assert gone(tree)


@BOTH
def test_a_child_that_is_killed_is_replaced(box: Box, level: Isolation) -> None:
    """The death is told with its signal, as without isolation."""
    ref = box.link.work("dies", "    os.kill(os.getpid(), 9)")
    finished = box.link.next(Finished)
    assert finished.ref == ref and finished.died is not None and finished.died.status == -9
    box.link.settle(ref)
    box.link.next(Ready)
    assert box.run("return 'alive'") == "alive"


@needs(NAMESPACES)
def test_a_runner_that_is_stopped_leaves_in_good_order(box: Box, runner: Runner) -> None:
    """The parent adopts and buries the template; exit code 0."""
    tree = runner.tree()
    assert [process.status() for process in tree if process.status() == psutil.STATUS_ZOMBIE] == []
    runner.process.terminate()
    assert runner.wait() == 0
    assert gone(tree)


@needs(NAMESPACES)
def test_a_sandbox_that_cannot_be_entered_keeps_the_runner_from_working(runner: Runner, tmp_path: Path) -> None:
    """Never in less than was ordered: the load fails and says why."""
    wrong = sandbox(tmp_path, NAMESPACES)
    (tmp_path / "root").rmdir()
    runner.launch("def handler(): return 1", sandbox=wrong)
    reason = runner.server.accept().next(LoadFailed).reason
    assert "isolation level 2 (namespaces) cannot be entered" in reason and "treadle doctor" in reason
