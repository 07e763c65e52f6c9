"""Runners whose children are shut off, and a handler that does in there whatever a test asks it to."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from treadle.model.container import Isolation
from treadle.model.wire import Finished, Sandbox
from treadle.runtime.isolation import tried

from .link_server import Link
from .running import Runner

HANDLER = """
    import os
    from pathlib import Path

    def handler(code, **names):
        names |= {"os": os, "Path": Path}
        exec("def run():\\n" + code, names)
        return names["run"]()
"""

TROUBLES = tried(sys.executable)


def needs(level: Isolation) -> pytest.MarkDecorator:
    """Skips where this machine does not give the level, with what it says."""
    return pytest.mark.skipif(bool(TROUBLES[level]), reason=f"level {level.value}: {TROUBLES[level]}")


def sandbox(folder: Path, level: Isolation, **more: Any) -> Sandbox:
    """What the runtime makes for the container in this folder."""
    folders = [folder / "home", folder / "tmp", folder / "root"]
    for one in folders:
        one.mkdir(exist_ok=True)
    home, scratch, root = map(str, folders)
    return Sandbox(level, [str(folder / "code"), home], **{"scratch": scratch, "root": root, **more})


class Box:
    """A runner at an isolation level."""

    def __init__(self, runner: Runner, folder: Path, level: Isolation, **more: Any) -> None:
        self._count = 0
        self.link: Link = runner.start(HANDLER, sandbox=sandbox(folder, level, **more))

    def run(self, code: str, **names: Any) -> Any:
        """What this code, the body of a function, returns in the container; `names` are there for it."""
        finished = self._run(code, names)
        assert finished.raised is None, f"{finished.raised.message}\n{finished.raised.traceback}"
        return json.loads(finished.result or b"null")

    def refusal(self, code: str, **names: Any) -> str:
        """The class of the exception that this code ends with."""
        finished = self._run(code, names)
        assert finished.raised is not None, f"it was not refused: {finished}"
        return finished.raised.type

    def _run(self, code: str, names: dict[str, Any]) -> Finished:
        self._count += 1
        body = textwrap.indent(textwrap.dedent(code), "    ")
        return self.link.run(f"t{self._count}", body, **names)
