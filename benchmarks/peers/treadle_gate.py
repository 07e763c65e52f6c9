"""The harness's worker command for Treadle: opens the gate at which the container's children wait, and stays."""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    os.open(os.environ["BENCH_TICK"] + "_gate", os.O_RDWR)  # for writing too: whoever waits to read goes on
    signal.pause()
