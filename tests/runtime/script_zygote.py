"""The real zygote, whose runners run the script in their container's folder instead of the runner's own program.

Given the arguments of a runner it is one of those. The script has what a child of the runner would have: the variables
that were declared, and the source as its working directory.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
from pathlib import Path

from treadle.model.wire import decode_surroundings
from treadle.runner.inside import read
from treadle.runner.zygote import Zygote


def run_script(argv: list[str]) -> int:
    code = Path(argv[1], "code")
    os.environ.clear()
    os.environ.update(decode_surroundings(read(int(argv[2]))).env)
    os.chdir(code)
    try:
        runpy.run_path(str(code / "runner.py"))
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        Zygote(socket.socket(fileno=int(sys.argv[1])), run_script).serve()
    else:
        sys.exit(run_script(sys.argv))
