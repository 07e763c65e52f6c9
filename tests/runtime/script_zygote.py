"""The real zygote, whose runners run the script in their container's folder instead of the runner's own program."""

from __future__ import annotations

import runpy
import socket
import sys
from pathlib import Path

from treadle.runner.zygote import Zygote


def run_script(argv: list[str]) -> int:
    try:
        runpy.run_path(str(Path(argv[1], "code", "runner.py")))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    Zygote(socket.socket(fileno=int(sys.argv[1])), run_script).serve()
