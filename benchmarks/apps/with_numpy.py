"""A task queue whose module takes its time to import."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import treadle
from treadle import Image, task_queue

if treadle.env.is_remote():
    import numpy  # type: ignore[import-not-found]  # the container has it

NOTES = Path(os.environ.get("BENCH_NOTES", "."))


@task_queue(keep_warm_seconds=0, memory=256, image=Image(python_packages=["numpy"]), env={"BENCH_NOTES": str(NOTES)})
def cold_numpy() -> int:
    now = time.time()
    with (NOTES / "marks").open("ab") as file:
        file.write(struct.pack("dq", now, os.getpid()))
    return int(numpy.ones(3).sum())
