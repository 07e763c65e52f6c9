"""The process that `treadle up` turns into: a server and one agent, with nothing loaded that is only for commands."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

from treadle.cli import exit_with
from treadle.model.settings import Settings, load
from treadle.sdk.console import Console


def serve_until_stopped(given: dict[str, Any]) -> int:
    """Run with what `treadle up` was given: the parameters of `load`; the rest of the settings is found again."""
    import uvloop  # noqa: PLC0415 - here, where a part that is missing is told in one line

    from treadle.agent.main import run_agent  # noqa: PLC0415
    from treadle.server.main import serve  # noqa: PLC0415

    settings = load(**given)
    uvloop.run(serve(settings, run_agent=run_agent, on_ready=partial(_announce, settings)))
    return 0


def _announce(settings: Settings, url: str) -> None:
    Console().say(f"Treadle runs at {url} (data: {settings.data}). Ctrl-C stops it.")


if __name__ == "__main__":
    exit_with(partial(serve_until_stopped, json.loads(sys.argv[1])))
