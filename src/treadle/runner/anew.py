"""A child that its image's interpreter was started for: `python -P -m treadle.runner.anew SPEC TEMPLATE FD…`.

For variables that only a start obeys, such as PYTHONHASHSEED and LD_PRELOAD, and for images that have packages of
their own where the runner has brought some. It runs inside the sandbox that its template has entered.
"""

from __future__ import annotations

import os
import socket
import sys

import msgspec

from treadle.model.wire import RunSpec
from treadle.runner import checkpoint, child
from treadle.runner.inside import read


def main(argv: list[str]) -> None:
    """SPEC is an open file with `RunSpec`; after TEMPLATE's pid what a child gets, and a checkpoint's two ways."""
    spec_file, template, *fds = map(int, argv[1:])
    for fd in (spec_file, *fds):
        os.set_inheritable(fd, False)
    spec = msgspec.msgpack.decode(read(spec_file), type=RunSpec)
    files, ways = fds[: child.FILES], [socket.socket(fileno=fd) for fd in fds[child.FILES :]]
    if ways:
        checkpoint.run(spec, template, files, *ways)
    child.run(spec, template, files)


if __name__ == "__main__":
    main(sys.argv)
