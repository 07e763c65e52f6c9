"""Containers forked by a zygote: like spawned ones in every respect, and none the worse for the zygote's death."""
# ruff: noqa: ASYNC220 - a test may block its own loop

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from runtime.conftest import script_command, script_zygote
from runtime.waiting import async_test, until
from treadle.model.deployment import QueueConfig
from treadle.runtime import processes
from treadle.runtime.base import StartSpec
from treadle.runtime.probe import Limits
from treadle.runtime.process import ProcessRuntime, environment
from treadle.runtime.zygote import KEPT, Zygotes

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="zygotes are for Linux"),
]

SLEEPER = """
    import pathlib, sys, time
    pathlib.Path(sys.argv[1], "up").write_text("up")
    time.sleep(600)
"""
TELLS_ENVIRONMENT = """
    import json, os, pathlib, sys
    told = {"env": dict(os.environ), "kernel": pathlib.Path("/proc/self/environ").read_text(), "path": sys.path}
    told["child"] = os.popen("env -0").read()
    pathlib.Path(sys.argv[1], "told").write_text(json.dumps(told))
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no reason to do without a zygote: these tests look at what it does."""
    monkeypatch.setattr("treadle.runtime.zygote.PATIENCE", 30.0)


@pytest.fixture
def runtime() -> Iterator[ProcessRuntime]:
    """With a zygote of its own."""
    runtime = ProcessRuntime(Limits("watchdog"), script_command, Zygotes(script_zygote))
    yield runtime
    runtime.close()


def zygote_of(pid: int) -> psutil.Process | None:
    """The zygote that has forked this runner, if one has."""
    parent = psutil.Process(pid).parent()
    return parent if parent and "zygote" in " ".join(parent.cmdline()) else None


def zygotes() -> list[psutil.Process]:
    """Those that this process has started."""
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


@async_test
async def test_a_container_is_forked_and_looks_as_if_it_were_spawned(runtime: ProcessRuntime, make) -> None:
    """Its parent is the zygote; its command line, session and mark are its own."""
    spec: StartSpec = make(SLEEPER)
    running = await runtime.start(spec)
    assert zygote_of(running.pid)
    await until((spec.folder / "up").exists)
    process = psutil.Process(running.pid)
    assert process.cmdline() == [sys.executable, "-P", "-m", "treadle.runner", str(spec.folder)]
    assert os.getsid(running.pid) == running.pid
    assert process.environ() == {"CONTAINER_ID": spec.run.container_id}
    assert [fd.path for fd in process.open_files() if "memfd" in fd.path] == []
    running.kill()
    assert await asyncio.wait_for(running.wait(), 30) == -signal.SIGKILL


@async_test
async def test_the_environment_is_exactly_the_one_declared(
    runtime: ProcessRuntime, make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the agent's or the zygote's environment is seen, by the runner or by what it starts."""
    monkeypatch.setenv("TREADLE_SECRET_PROBE", "seen")
    spec: StartSpec = make(TELLS_ENVIRONMENT, config=QueueConfig(handler="app:f", env={"MINE": "é=\n1"}))
    await (await runtime.start(spec)).wait()
    told = msgspec.json.decode((spec.folder / "told").read_bytes())
    declared = environment(spec, spec.folder / "home")
    assert told["env"] == declared
    shell_adds = {"PWD", "OLDPWD", "SHLVL", "_"}
    inherited = dict(line.split("=", 1) for line in told["child"].split("\0") if line)
    assert {name: text for name, text in inherited.items() if name not in shell_adds} == declared
    assert "TREADLE_SECRET_PROBE" not in told["kernel"]


@async_test
async def test_what_is_printed_is_in_the_log_whole_and_in_order(runtime: ProcessRuntime, make) -> None:
    """Both streams, written in turns, by the runner and by a process that it starts."""
    spec: StartSpec = make("""
        import subprocess, sys
        for number in range(2000):
            print(number, file=sys.stdout if number % 2 else sys.stderr)
        subprocess.run(["echo", "from a child"])
        print("no end of line", end="")
    """)
    assert await (await runtime.start(spec)).wait() == 0
    lines = [*map(str, range(2000)), "from a child", "no end of line"]
    assert (spec.folder / "log").read_text() == "\n".join(lines)


@async_test
async def test_ten_containers_start_at_once_and_each_end_is_told_to_the_right_one(
    runtime: ProcessRuntime, make
) -> None:
    """Ten starts before the zygote is up are all forked by one zygote."""
    specs: list[StartSpec] = [make(f"raise SystemExit({number})") for number in range(10)]
    running = await asyncio.gather(*map(runtime.start, specs))
    assert len({one.pid for one in running}) == 10
    assert await asyncio.gather(*(one.wait() for one in running)) == list(range(10))
    assert len(zygotes()) == 1


@async_test
async def test_the_death_of_a_zygote_harms_no_container(runtime: ProcessRuntime, make) -> None:
    """The container runs on and its end is noticed; the next one comes from a fresh zygote."""
    spec: StartSpec = make(SLEEPER)
    first = await runtime.start(spec)
    await until((spec.folder / "up").exists)
    zygote = zygote_of(first.pid)
    assert zygote
    zygote.kill()
    await until(lambda: not psutil.pid_exists(zygote.pid))  # buried, so the runtime knows
    assert first.alive()
    second = await runtime.start(make(SLEEPER))
    fresh = zygote_of(second.pid)
    assert fresh
    assert fresh.pid != zygote.pid
    os.kill(first.pid, signal.SIGKILL)
    assert await asyncio.wait_for(first.wait(), 30) is None
    second.kill()
    assert await asyncio.wait_for(second.wait(), 30) == -signal.SIGKILL


@async_test
async def test_a_zygote_that_does_not_answer_is_done_without(
    runtime: ProcessRuntime, make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed and the container is spawned, so that there is one runner whatever had become of the order."""
    first = await runtime.start(make(SLEEPER))
    zygote = zygote_of(first.pid)
    assert zygote
    monkeypatch.setattr("treadle.runtime.zygote.PATIENCE", 0.3)
    zygote.suspend()
    second = await runtime.start(make(SLEEPER))
    assert psutil.Process(second.pid).ppid() == os.getpid()
    await until(lambda: processes.members(second.container_id, -1) == {second.pid})  # its exec may still be under way
    assert not zygote.is_running()
    for running in (first, second):
        running.kill()
        await asyncio.wait_for(running.wait(), 30)


@async_test
async def test_without_a_zygote_that_starts_containers_are_spawned(make) -> None:
    """Neither a program that ends at once nor one that is not there keeps a container from starting."""
    for command in ([sys.executable, "-c", "pass"], ["/nowhere/python"]):
        runtime = ProcessRuntime(Limits("watchdog"), script_command, Zygotes(lambda _python, argv=command: argv))
        assert await (await runtime.start(make("raise SystemExit(7)"))).wait() == 7
        runtime.close()


@async_test
async def test_a_process_of_several_threads_is_no_zygote(make, tmp_path: Path) -> None:
    """A package of the image may start a thread when the interpreter starts; a fork would be without it."""
    program = tmp_path / "threads.py"
    text = Path(__file__).with_name("script_zygote.py").read_text()
    program.write_text(f"{text.split('if __name__')[0]}\nimport threading, time\n"
                       "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
                       "Zygote(socket.socket(fileno=int(sys.argv[1])), run_script).serve()\n")  # fmt: skip
    zygotes_ = Zygotes(lambda python: [str(python), "-P", str(program)])
    runtime = ProcessRuntime(Limits("watchdog"), script_command, zygotes_)
    running = await runtime.start(make(SLEEPER))
    assert psutil.Process(running.pid).ppid() == os.getpid()
    running.kill()
    await running.wait()
    runtime.close()


@async_test
async def test_few_idle_zygotes_are_kept_and_those_with_containers_always(make) -> None:
    """Of idle ones the last used stay; one whose container lives is needed to tell how that ends."""
    runtime = ProcessRuntime(
        Limits("watchdog"), script_command, Zygotes(lambda _: script_zygote(Path(sys.executable)))
    )
    running = await runtime.start(make(SLEEPER))
    for number in range(KEPT + 2):
        runtime.warm(Path(f"/image-{number}/python"))
    assert len(zygotes()) == KEPT + 1
    assert zygote_of(running.pid)
    running.kill()
    assert await asyncio.wait_for(running.wait(), 30) == -signal.SIGKILL
    runtime.close()
    assert zygotes() == []


@async_test
async def test_a_killed_agent_takes_its_zygote_along_and_leaves_its_containers(runtime: ProcessRuntime, make) -> None:
    """The next agent adopts a container whose zygote is gone."""
    spec: StartSpec = make(SLEEPER)
    (spec.folder / "start.msgpack").write_bytes(msgspec.msgpack.encode(spec, enc_hook=str))
    program = f"""
import asyncio, pathlib, sys, msgspec
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from runtime.conftest import script_command, script_zygote
from treadle.runtime.base import StartSpec
from treadle.runtime.probe import Limits
from treadle.runtime.process import ProcessRuntime
from treadle.runtime.zygote import Zygotes
async def main():
    data = pathlib.Path({str(spec.folder / "start.msgpack")!r}).read_bytes()
    spec = msgspec.msgpack.decode(data, type=StartSpec, dec_hook=lambda kind, value: kind(value))
    await ProcessRuntime(Limits("watchdog"), script_command, Zygotes(script_zygote)).start(spec)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    agent = subprocess.Popen([sys.executable, "-c", program])
    await until(lambda: (spec.folder / "up").exists() and (spec.folder / "state.json").exists())
    pid = msgspec.json.decode((spec.folder / "state.json").read_bytes())["pid"]
    zygote = zygote_of(pid)
    assert zygote
    agent.kill()
    agent.wait()
    await until(lambda: not zygote.is_running() or zygote.status() == psutil.STATUS_ZOMBIE)
    adopted = await runtime.adopt(spec.folder)
    assert adopted is not None
    assert adopted.pid == pid
    adopted.kill()
    assert await asyncio.wait_for(adopted.wait(), 30) is None
