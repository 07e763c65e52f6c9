"""What every runtime must do: start, notice the end, kill, let go and adopt."""
# ruff: noqa: ASYNC220, ASYNC240 - a test may block its own loop

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from runtime.waiting import async_test, until
from treadle.model.deployment import ImageSpec, QueueConfig
from treadle.model.errors import TreadleError
from treadle.model.wire import RunSpec
from treadle.runtime import docker, processes
from treadle.runtime.base import Runtime, StartSpec
from treadle.runtime.docker import DockerRuntime

pytestmark = pytest.mark.process

SLEEPER = """
    import os, pathlib, sys, time
    folder = pathlib.Path(sys.argv[1], "code")
    (folder / "up").write_text(str(os.getpid()))
    time.sleep(600)
"""
FAMILY = """
    import os, pathlib, sys, time
    folder = pathlib.Path(sys.argv[1], "code")
    if os.fork() == 0:  # a daemon: out of the session, its parent gone
        os.setsid()
        if os.fork() == 0:
            (folder / "new").write_text(str(os.getpid()))
            (folder / "new").rename(folder / "daemon")
            time.sleep(600)
        os._exit(0)
    os.wait()
    END
"""


def marked(spec: StartSpec) -> set[int]:
    """Processes of a container by its mark, as this machine numbers them: inside they may have other numbers."""
    return processes.members(spec.run.container_id, -1)


async def read_when_there(path: Path) -> str:
    await until(lambda: path.exists() and path.read_text() != "")
    return path.read_text()


@async_test
async def test_a_started_container_is_alive_until_it_is_killed(runtime: Runtime, make) -> None:
    running = await runtime.start(make(SLEEPER))
    assert running.alive()
    running.kill()
    assert await asyncio.wait_for(running.wait(), 30) == -signal.SIGKILL
    assert not running.alive()


@pytest.mark.parametrize(("script", "status"), [("raise SystemExit(3)", 3), ("pass", 0)])
@async_test
async def test_the_exit_code_of_a_runner_is_told(runtime: Runtime, make, script: str, status: int) -> None:
    running = await runtime.start(make(script))
    assert await asyncio.wait_for(running.wait(), 30) == status


@async_test
async def test_a_container_that_cannot_be_noted_down_does_not_start(runtime: Runtime, make) -> None:
    """The next agent would not find it."""
    spec: StartSpec = make(SLEEPER)
    for name in ("state.json", docker.STATE):
        (spec.folder / name / "full").mkdir(parents=True)
    with pytest.raises((OSError, TreadleError)):
        await runtime.start(spec)
    assert marked(spec) == set()


@async_test
async def test_the_end_of_a_runner_is_noticed_at_once(runtime: Runtime, make) -> None:
    running = await runtime.start(make(SLEEPER))
    os.kill(running.pid, signal.SIGKILL)
    assert await asyncio.wait_for(running.wait(), 30) == -signal.SIGKILL


@pytest.mark.parametrize("end", ["time.sleep(600)", "raise SystemExit(1)"])
@async_test
async def test_daemons_of_user_code_die_with_their_container(runtime: Runtime, make, end: str) -> None:
    spec: StartSpec = make(FAMILY.replace("END", end))
    running = await runtime.start(spec)
    await read_when_there(spec.folder / "code" / "daemon")
    running.kill()
    await asyncio.wait_for(running.wait(), 30)
    assert marked(spec) == set()


@async_test
async def test_run_msgpack_holds_the_limits_and_is_private(runtime: Runtime, make) -> None:
    spec: StartSpec = make("""
        import pathlib, sys, time, msgspec
        folder = pathlib.Path(sys.argv[1])
        run = msgspec.msgpack.decode((folder / "run.msgpack").read_bytes())
        folder = folder / "code"
        (folder / "oom").write_text(pathlib.Path(run["oom_file"]).read_text())
        (folder / "peak.new").write_text(pathlib.Path(run["peak_file"]).read_text())
        (folder / "peak.new").rename(folder / "peak")
        time.sleep(600)
    """, memory=64)
    running = await runtime.start(spec)
    file = spec.folder / "run.msgpack"
    run = msgspec.msgpack.decode(file.read_bytes(), type=RunSpec)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (run.container_id, run.token, run.limit) == (spec.run.container_id, "secret", 64 * 1024 * 1024)
    assert int(await read_when_there(spec.folder / "code" / "peak")) >= 0
    assert "oom_kill 0" in (spec.folder / "code" / "oom").read_text().splitlines()
    running.kill()
    await running.wait()


@async_test
async def test_nothing_of_the_limits_is_left_after_the_end(runtime: Runtime, make) -> None:
    spec: StartSpec = make("""
        import sys, msgspec
        from treadle.model.wire import RunSpec
        run = msgspec.msgpack.decode(open(sys.argv[1] + "/run.msgpack", "rb").read(), type=RunSpec)
        for file in run.procs_files:
            open(file, "w").write("0")
    """)
    running = await runtime.start(spec)
    await asyncio.wait_for(running.wait(), 30)
    run = msgspec.msgpack.decode((spec.folder / "run.msgpack").read_bytes(), type=RunSpec)
    assert not any(Path(file).exists() for file in run.procs_files)


@async_test
async def test_the_environment_is_clean_and_says_what_the_container_is(
    runtime: Runtime, make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_SECRET", "x")
    image = ImageSpec(env_vars={"A": "image", "B": "image"})
    config = QueueConfig(handler="app:f", env={"B": "env", "STUB_ID": "mine"}, image=image, workers=2)
    spec: StartSpec = make(
        """
        import json, os, pathlib, sys
        print("to the log")
        pathlib.Path("env.json").write_text(json.dumps({**os.environ, "cwd": os.getcwd()}))
        """,
        config=config,
    )
    await (await runtime.start(spec)).wait()
    env = msgspec.json.decode((spec.folder / "code" / "env.json").read_bytes())
    assert "AGENT_SECRET" not in env
    assert (env["A"], env["B"], env["STUB_ID"], env["WORKERS"]) == ("image", "env", "d1", "2")
    assert (env["HANDLER"], env["CONTAINER_ID"], env["TIMEOUT"]) == ("app:f", spec.run.container_id, "3600")
    assert env["PATH"].startswith(str(spec.python.parent))
    assert (env["cwd"], env["HOME"]) == (spec.run.code, str(spec.folder / "home"))
    assert (spec.folder / "log").read_text() == "to the log\n"


@async_test
async def test_a_released_container_is_adopted_watched_and_killed(runtime: Runtime, make) -> None:
    spec: StartSpec = make(SLEEPER)
    first = await runtime.start(spec)
    first.release()
    second = await runtime.adopt(spec.folder)
    assert second is not None
    assert (second.pid, second.container_id, second.limits) == (first.pid, first.container_id, runtime.limits)
    assert second.alive()
    second.kill()
    await asyncio.wait_for(second.wait(), 30)
    assert not second.alive()


@async_test
async def test_a_folder_whose_runner_is_dead_is_not_adopted_and_its_rest_is_killed(runtime: Runtime, make) -> None:
    spec: StartSpec = make(FAMILY.replace("END", "time.sleep(600)"))
    first = await runtime.start(spec)
    await read_when_there(spec.folder / "code" / "daemon")
    assert len(marked(spec)) >= 2
    first.release()
    os.kill(first.pid, signal.SIGKILL)
    await until(lambda: processes.identity(first.pid) is None)
    assert await runtime.adopt(spec.folder) is None
    assert marked(spec) == set()


@async_test
async def test_another_process_with_the_same_number_is_not_adopted(runtime: Runtime, make) -> None:
    if isinstance(runtime, DockerRuntime):
        pytest.skip("an engine is asked by name, not by number")
    spec: StartSpec = make("pass")
    await (await runtime.start(spec)).wait()
    state = msgspec.json.decode((spec.folder / "state.json").read_bytes())
    (spec.folder / "state.json").write_bytes(msgspec.json.encode({**state, "pid": os.getpid()}))
    assert await runtime.adopt(spec.folder) is None


@async_test
async def test_an_empty_folder_is_not_adopted(runtime: Runtime, tmp_path: Path) -> None:
    assert await runtime.adopt(tmp_path) is None


@async_test
async def test_a_container_survives_the_death_of_its_agent_and_its_end_is_noticed(runtime: Runtime, make) -> None:
    """A process that is not our child: another process starts it and is killed."""
    by_engine = isinstance(runtime, DockerRuntime)
    made = "DockerRuntime(engine(), engine_command)" if by_engine else (
        f"ProcessRuntime(probe({runtime.limits!r}), script_command)"
    )
    spec: StartSpec = make(SLEEPER)
    (spec.folder / "start.msgpack").write_bytes(msgspec.msgpack.encode(spec, enc_hook=str))
    program = f"""
import asyncio, pathlib, sys, msgspec
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from runtime.conftest import engine, engine_command, script_command
from treadle.runtime.docker import DockerRuntime
from treadle.runtime.base import StartSpec
from treadle.runtime.probe import probe
from treadle.runtime.process import ProcessRuntime
async def main():
    data = pathlib.Path({str(spec.folder / "start.msgpack")!r}).read_bytes()
    spec = msgspec.msgpack.decode(data, type=StartSpec, dec_hook=lambda kind, value: kind(value))
    running = await {made}.start(spec)
    print(running.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    agent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    with agent:
        pid = int(agent.stdout.readline())
        agent.kill()
    await read_when_there(spec.folder / "code" / "up")
    assert processes.identity(pid)
    adopted = await runtime.adopt(spec.folder)
    assert adopted is not None
    assert adopted.pid == pid
    os.kill(pid, signal.SIGKILL)
    status = await asyncio.wait_for(adopted.wait(), 30)
    assert status == (-signal.SIGKILL if by_engine else None)  # an engine is asked afterwards, too


@pytest.mark.parametrize("which", [0, 1])
@async_test
async def test_notes_that_cannot_be_read_are_no_way_to_live_on(runtime: Runtime, make, which: int) -> None:
    """A pipe, too, in the place of a note: whatever bears the container's mark is killed, without waiting."""
    spec: StartSpec = make(SLEEPER)
    first = await runtime.start(spec)
    await read_when_there(spec.folder / "code" / "up")
    first.release()
    notes = ("run.msgpack", "state.json", "docker.json")
    forged = [name for name in notes if (spec.folder / name).exists()][which]
    (spec.folder / forged).unlink()
    os.mkfifo(spec.folder / forged)
    adopted = await asyncio.wait_for(runtime.adopt(spec.folder), 30)
    if isinstance(runtime, DockerRuntime) and forged == "run.msgpack":
        assert adopted is not None  # an engine is not asked by it
        adopted.kill()
        await asyncio.wait_for(adopted.wait(), 30)
    else:
        assert adopted is None
    assert marked(spec) == set()
