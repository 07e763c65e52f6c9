"""Tries which isolation levels this machine gives: `python -P -m treadle.runner.trial` prints each one's trouble.

One JSON object on standard output: by level, why a process cannot enter it, "" if it can. It is tried with the code
that containers enter it by, in a process that ends there.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from treadle.model.container import Isolation
from treadle.model.wire import Sandbox
from treadle.runner import sandbox


def trouble(level: Isolation, folder: Path) -> str:
    """Why this level cannot be entered, or does not hold; "" if it does. `folder` is empty."""
    secret = folder / "hidden" / "secret"
    for name in ("hidden", "home", "scratch", "root"):
        (folder / name).mkdir()
    secret.write_text("secret")
    box = Sandbox(
        level, [str(folder / "home")], hidden=[str(secret.parent)], scratch=str(folder / "scratch"),
        root=str(folder / "root"),
    )  # fmt: skip
    said, say = os.pipe()
    if os.fork() == 0:
        os.close(said)
        os.write(say, _try(box, secret).encode())
        os._exit(0)
    os.close(say)
    with os.fdopen(said, encoding="utf-8") as answer:
        return answer.read() or "the process that tried it has been killed"


def _try(box: Sandbox, secret: Path) -> str:
    """"works", or what went wrong; whatever happens this process must not go on as its parent."""
    try:
        sandbox.enter(box)
        sandbox.close(box)
        Path(box.writable[0], "file").write_text("")
    except BaseException as exc:  # noqa: BLE001 -- as said above
        return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
    try:
        secret.read_text()
    except OSError:
        return "works"
    return "it can be entered, but does not hide files"


def main() -> None:
    troubles: dict[str, str] = {}
    for level in (Isolation.LANDLOCK, Isolation.NAMESPACES):
        with tempfile.TemporaryDirectory(prefix="treadle-") as folder:
            found = trouble(level, Path(folder))
        troubles[str(level.value)] = "" if found == "works" else found
    print(json.dumps(troubles))


if __name__ == "__main__":
    if sys.platform == "linux":
        main()
    else:
        print(json.dumps({"1": "it takes Linux", "2": "it takes Linux"}))
