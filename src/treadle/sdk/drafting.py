"""A process of a serve session: it waits with all loaded, and when told imports the user's file and packs the source.

`python -m treadle.sdk.drafting FILE.py:FUNC` reads a line from stdin, then writes one JSON text to stdout. Each is
used once: a module that has changed is best imported by a process that never had it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import msgspec
from msgspec.structs import replace

from treadle.client import Client
from treadle.model.errors import TreadleError
from treadle.sdk.console import Console
from treadle.sdk.definition import locate
from treadle.sdk.load import find_queue
from treadle.sdk.prepare import with_context
from treadle.sdk.serving import Draft, Order
from treadle.sdk.source import pack


def draft(target: str, order: Order) -> Draft:
    """Import the file, pack the working directory, and upload it unless the server holds it."""
    root = Path.cwd()
    try:
        queue = find_queue(target)
        client, data = Client(order.url, order.token), Path(order.exclude)
        image = with_context(client, queue.config.image, queue.context, Console(), data=data)
        config = replace(queue.config, handler=locate(queue.func, root), image=image)
        with tempfile.TemporaryFile() as file:
            packed = pack(root, file, exclude=[data])
            if not client.has_source(packed.id):
                client.put_source(packed.id, file)
        return Draft(config, packed.id, packed.files, packed.size, packed.skipped)
    except TreadleError as error:
        return Draft(error=error.message, advice=error.advice)
    except OSError as error:
        return Draft(error=str(error))


def main(target: str) -> None:
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the user's file prints is shown by its container
    line = sys.stdin.buffer.readline()
    if line:  # else nobody needs it any more
        answer.write(msgspec.json.encode(draft(target, msgspec.json.decode(line, type=Order))) + b"\n")
        answer.close()


if __name__ == "__main__":
    main(sys.argv[1])
