"""A real agent against a real WebSocket server; scripts stand in for the runner."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import signal
import uuid
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from runtime.conftest import script_command
from runtime.waiting import async_test, until
from treadle.agent.main import run_agent
from treadle.model import wire
from treadle.model.deployment import Image, ImageSpec, QueueConfig
from treadle.model.wire import AgentHello, Build, BuildLog, Built, ContainerSpec, Exited, Wanted
from treadle.runtime import processes
from treadle.runtime.image import Images
from treadle.runtime.probe import Limits
from treadle.runtime.process import ProcessRuntime

pytestmark = pytest.mark.process

T = TypeVar("T")
SLEEPER = "import time\ntime.sleep(600)\n"


def zipped(script: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("runner.py", script)
    return file.getvalue()


class TestServer:
    """A WebSocket endpoint for one agent that remembers what it heard, and serves sources on the same port."""

    __test__ = False

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.tokens: list[str] = []
        self.sources: dict[str, bytes] = {}
        self.connection: ServerConnection | None = None
        self._server: Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await serve(self._agent, "127.0.0.1", self.port, process_request=self._source)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        self.connection = None

    async def _source(self, connection: ServerConnection, request: Request) -> Response | None:
        self.tokens.append(request.headers["Authorization"])
        if request.path == wire.AGENT_PATH:
            return None
        response = connection.respond(200, "")
        response.body = self.sources[request.path.rsplit("/", 1)[1]]
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(response.body))
        return response

    async def _agent(self, connection: ServerConnection) -> None:
        self.connection = connection
        async for frame in connection:
            assert isinstance(frame, bytes)
            self.heard += map(wire.decode_from_agent, wire.split(frame))

    async def send(self, *messages: wire.ServerToAgent) -> None:
        await until(lambda: self.connection)
        assert self.connection is not None
        await self.connection.send(wire.encode(list(messages)))

    def all(self, kind: type[T]) -> list[T]:
        return [message for message in self.heard if isinstance(message, kind)]

    async def next(self, kind: type[T], number: int = 1) -> T:
        """The message of that kind, by its number; waits for it."""
        await until(lambda: len(self.all(kind)) >= number)
        return self.all(kind)[number - 1]


class World:
    """A server, and an agent with a data folder that can be stopped and started."""

    def __init__(self, data: Path, *, kill_on_stop: bool) -> None:
        self.data = data
        self.kill_on_stop = kill_on_stop
        self.server = TestServer()
        shared = data.parent / "images"  # one for all tests: making an environment takes longer than most of them
        shared.mkdir(exist_ok=True)
        (data / "images").symlink_to(shared)
        self.image = Images(data / "images").build(ImageSpec(), None, lambda _: None).image
        self.containers: list[str] = []
        self._stop = asyncio.Event()
        self._agent: asyncio.Task[None] | None = None

    def start_agent(self) -> None:
        self._stop = asyncio.Event()
        agent = run_agent(
            url=f"http://127.0.0.1:{self.server.port}",
            token="sesame",
            data=self.data,
            stop=self._stop,
            kill_on_stop=self.kill_on_stop,
            runtime=ProcessRuntime(Limits("watchdog"), script_command),
        )
        self._agent = asyncio.create_task(agent)

    async def stop_agent(self) -> None:
        self._stop.set()
        assert self._agent is not None
        await asyncio.wait_for(self._agent, 20)

    def container(self, script: str = SLEEPER, *, image: Image | None = None) -> ContainerSpec:
        data = zipped(script)
        source_id = hashlib.sha256(data).hexdigest()
        self.server.sources[source_id] = data
        container_id = f"taskqueue-test-{uuid.uuid4().hex[:8]}"
        self.containers.append(container_id)
        config = QueueConfig(handler="app:f")
        return ContainerSpec(container_id, "d1", "t", config, image or self.image, source_id, started=False)

    async def running(self) -> ContainerSpec:
        """A container that was wanted alone, and runs."""
        spec = self.container()
        await self.server.send(Wanted([spec]))
        await until(lambda: self.pid(spec))
        return spec

    def pid(self, spec: ContainerSpec) -> int:
        """Of the runner, once it runs; 0 before and after."""
        return next(iter(processes.members(spec.container_id, -1)), 0)


@contextlib.asynccontextmanager
async def world(data: Path, *, kill_on_stop: bool = False) -> AsyncIterator[World]:
    made = World(data, kill_on_stop=kill_on_stop)
    await made.server.start()
    made.start_agent()
    try:
        yield made
    finally:
        await made.stop_agent()
        for container_id in made.containers:
            processes.kill(processes.members(container_id, -1))
        await made.server.stop()


@async_test
async def test_the_first_message_says_what_the_machine_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        hello = await w.server.next(AgentHello)
        assert w.server.tokens[0] == "Bearer sesame"
        assert isinstance(w.server.heard[0], AgentHello)
        assert hello.agent_id == (tmp_path / "agent" / "id").read_text().strip()
        assert (hello.limits, hello.running, hello.gpus) == ("watchdog", [], [])
        assert hello.cpu >= 1000
        assert hello.memory > 100


@async_test
async def test_fake_gpus_are_offered(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREADLE_FAKE_GPUS", "A10G, T4")
        async with world(tmp_path) as w:
            names = [gpu.name for gpu in (await w.server.next(AgentHello)).gpus]
            assert names == ["A10G", "T4"]


@async_test
async def test_a_wanted_container_runs_in_its_own_copy_of_the_source_until_it_is_not_wanted(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        spec = await w.running()
        folder = tmp_path / "agent" / "containers" / spec.container_id
        assert (folder / "code" / "runner.py").read_text() == SLEEPER
        await w.server.send(Wanted([]))
        exited = await w.server.next(Exited)
        assert (exited.container_id, exited.failed) == (spec.container_id, False)
        assert not w.pid(spec)
        assert not folder.exists()


@async_test
async def test_the_end_of_a_runner_is_told_once_with_code_and_log_and_never_started_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        spec = w.container("import sys\nprint('Traceback\\n  at a place\\nno such thing\\n\\n')\nsys.exit(3)\n")
        await w.server.send(Wanted([spec]))
        exited = await w.server.next(Exited)
        tail = "Traceback\n  at a place\nno such thing"
        assert exited == Exited(spec.container_id, "ended with exit code 3: no such thing", tail=tail)
        other = w.container()
        await w.server.send(Wanted([spec, other]))
        await until(lambda: w.pid(other))
        assert w.server.all(Exited) == [exited]
        assert not w.pid(spec)


@async_test
async def test_a_long_line_of_a_runners_log_is_cut(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.server.send(Wanted([w.container("import sys\nsys.exit('x' * 5000)\n")]))
        assert (await w.server.next(Exited)).reason == f"ended with exit code 1: {'x' * 199}…"


@async_test
async def test_the_last_words_of_a_runner_are_told_also_when_it_is_killed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        spec = w.container("from pathlib import Path\nPath('../last_words').write_text('bad\\n')\n" + SLEEPER)
        await w.server.send(Wanted([spec]))
        words = tmp_path / "agent" / "containers" / spec.container_id / "last_words"
        await until(lambda: words.exists() and words.read_text())
        await w.server.send(Wanted([]))
        assert (await w.server.next(Exited)).reason == "bad"


@async_test
async def test_a_killed_runner_is_told_with_its_signal(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        spec = await w.running()
        os.kill(w.pid(spec), signal.SIGKILL)
        assert (await w.server.next(Exited)).reason == "killed by signal 9 (SIGKILL)"


@async_test
async def test_a_container_whose_image_cannot_be_built_has_failed_with_the_reason(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        image = Image("f" * 32, "d", ImageSpec(commands=("exit 9",)), w.image.python, "")
        await w.server.send(Wanted([w.container(image=image)]))
        exited = await w.server.next(Exited)
        assert exited.failed
        assert "could not be started: The command 'exit 9' ended with exit code 9" in exited.reason


@async_test
async def test_of_many_files_that_cannot_be_copied_the_first_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        spec = await w.running()
        for name in ("one", "two"):
            os.mkfifo(tmp_path / "agent" / "sources" / spec.source_id / name)
        await w.server.send(Wanted([spec, w.container()]))
        exited = await w.server.next(Exited)
        assert exited.failed
        assert exited.reason.startswith("could not be started: ")
        assert exited.reason.count("is a named pipe") == 1


@async_test
async def test_a_container_given_up_while_its_image_is_built_never_starts(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        wait = 'touch "$VIRTUAL_ENV/../up"; while [ ! -e "$VIRTUAL_ENV/../go" ]; do sleep 0.01; done'
        image = Image("e" * 32, "d", ImageSpec(commands=(wait,)), w.image.python, "")
        spec = w.container(image=image)
        await w.server.send(Wanted([spec]))
        await until((tmp_path / "images" / "up").exists)
        await w.server.send(Wanted([]))
        await w.server.send(Build("sync", ImageSpec(base_image="x")))
        await w.server.next(Built)  # the agent has read all of it
        (tmp_path / "images" / "go").touch()
        exited = await w.server.next(Exited)
        assert (exited.failed, exited.reason) == (False, "stopped: it was not wanted any more")
        assert not w.pid(spec)


@async_test
async def test_one_that_ran_before_and_is_not_here_is_reported_lost(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        spec = wire.ContainerSpec("gone", "d1", "t", QueueConfig(handler="a:f"), w.image, "0" * 64, started=True)
        await w.server.send(Wanted([spec]))
        assert (await w.server.next(Exited)).reason == "its processes are gone"


@async_test
async def test_containers_live_on_while_the_server_is_away_and_ends_are_told_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        over, alive, dying = w.container("pass"), w.container(), w.container()
        await w.server.send(Wanted([over, alive, dying]))
        await w.server.next(Exited)
        await until(lambda: w.pid(alive) and w.pid(dying))
        pid = w.pid(alive)
        await w.server.stop()
        os.kill(w.pid(dying), signal.SIGKILL)
        w.server.heard.clear()
        await w.server.start()
        hello = await w.server.next(AgentHello)
        assert alive.container_id in hello.running
        assert over.container_id not in hello.running
        await w.server.next(Exited, 2)
        ids = {exited.container_id for exited in w.server.all(Exited)}
        assert ids == {over.container_id, dying.container_id}
        assert w.pid(alive) == pid


@async_test
async def test_the_next_agent_adopts_what_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        spec = await w.running()
        await until((tmp_path / "agent" / "containers" / spec.container_id / "state.json").exists)
        pid = w.pid(spec)
        await w.stop_agent()
        assert w.pid(spec) == pid
        w.start_agent()
        hello = await w.server.next(AgentHello, 2)
        assert hello.running == [spec.container_id]
        assert hello.agent_id == w.server.all(AgentHello)[0].agent_id
        await w.server.send(Wanted([]))
        await w.server.next(Exited)
        assert not w.pid(spec)


@async_test
async def test_an_agent_that_is_to_kill_leaves_nothing_and_tells_it(tmp_path: Path) -> None:
    async with world(tmp_path, kill_on_stop=True) as w:
        spec = await w.running()
        await w.stop_agent()
        assert not w.pid(spec)
        assert (await w.server.next(Exited)).container_id == spec.container_id


@async_test
async def test_builds_stream_their_lines_and_tell_the_image(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.server.send(Build("b1", ImageSpec(commands=("echo hello",))))
        built = await w.server.next(Built)
        assert (built.build_id, built.cached, built.error) == ("b1", False, "")
        assert built.image is not None
        assert BuildLog("b1", "hello") in w.server.heard
        await w.server.send(Build("b2", built.image.spec, built.image))
        assert await w.server.next(Built, 2) == Built("b2", built.image, cached=True)


@async_test
async def test_a_build_that_fails_tells_why(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.server.send(Build("b1", ImageSpec(python_version="python3.99")))
        built = await w.server.next(Built)
        assert built.image is None
        assert "Python 3.99 is not on this machine" in built.error
