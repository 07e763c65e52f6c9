"""Importing Treadle stays cheap: an app file is imported on every command and in every container."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

SERVER_PARTS = {"litestar", "uvicorn", "uvloop", "httptools", "apsw", "httpx2", "httpcore2", "psutil"}
TERMINAL_PARTS = {"typer", "click", "rich"}
HEAVY = SERVER_PARTS | TERMINAL_PARTS | {"asyncio", "websockets", "ssl", "http.client", "uv", "pathspec", "zipfile"}


def _loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running this."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    return set(done.stdout.split())


def test_importing_the_face_loads_nothing_but_itself() -> None:
    """`import treadle` loads no room of the house and no library, msgspec included."""
    loaded = _loaded_by("import treadle")
    assert {name for name in loaded if name.startswith("treadle.")} == set()
    assert not loaded & (HEAVY | {"msgspec"})


@pytest.mark.parametrize(
    "code",
    [
        "import treadle; treadle.task_queue",
        "from treadle import FunctionContext, Image, QueueDepthAutoscaler, TaskPolicy, env, task_queue",
        "from treadle import task_queue\n@task_queue(cpu=0.5)\ndef handler(x): return x",
    ],
)
def test_declaring_a_queue_stays_light(code: str) -> None:
    """The decorator loads neither the server's parts, nor the terminal's, nor a client."""
    loaded = _loaded_by(code)
    assert not loaded & HEAVY
    assert not {name for name in loaded if name.startswith(("treadle.server", "treadle.engine", "treadle.cli"))}


def test_the_sdk_never_loads_the_server() -> None:
    """Even everything that `.put()` uses leaves the server's parts alone."""
    loaded = _loaded_by("import treadle.sdk.handle, treadle.sdk.prepare, treadle.sdk.output, treadle.sdk.local")
    assert not loaded & (SERVER_PARTS | TERMINAL_PARTS)


def test_the_runner_needs_only_two_libraries() -> None:
    """A container's program loads msgspec and websockets, and nothing else that is not Python's own."""
    code = "import treadle.runner.parent, treadle.runner.template, treadle.runner.child"
    own = {"treadle", "msgspec", "websockets", "typing_extensions"}  # msgspec takes the last where it is there
    base = _loaded_by("")  # what the environment itself loads at start-up, such as editable-install hooks
    tops = {name.split(".")[0] for name in _loaded_by(code) - base}
    assert {name for name in tops if name not in sys.stdlib_module_names and not name.startswith("_")} <= own


def test_a_command_that_asks_loads_no_server() -> None:
    """`treadle --help` and the commands that ask a server load neither server nor agent."""
    loaded = _loaded_by("import treadle.cli.app")
    assert not loaded & SERVER_PARTS
    assert not {name for name in loaded if name.startswith(("treadle.server", "treadle.engine", "treadle.agent"))}


def test_the_server_loads_no_library_that_it_may_never_need() -> None:
    """Neither the commands, nor what secrets and webhooks load, nor pydantic, which the framework takes if it is there."""
    code = """
import treadle.cli.serve, treadle.agent.main, treadle.server.main
from types import SimpleNamespace
from treadle.server import app
app._litestar(SimpleNamespace(draining=lambda: False), "1")
"""
    tops = {name.split(".")[0] for name in _loaded_by(code)}
    assert tops >= {"litestar", "uvicorn", "apsw"}
    assert not tops & {"typer", "pydantic", "attr", "cryptography", "httpx2", "httpcore2", "rich", "pynvml"}
