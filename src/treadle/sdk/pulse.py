"""The last line of a terminal while something takes its time: what it is, and for how long."""

from __future__ import annotations

import threading
import time
from typing import TextIO

PATIENCE = 0.7  # seconds before it shows: most things are done by then
EACH = 0.1
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ERASE = "\r\x1b[2K"  # ECMA-48: to the start of the line, and clear it


class Pulse:
    """Shows `text` and the seconds below whatever else is printed (through `say`) until it is stopped."""

    def __init__(self, out: TextIO, text: str) -> None:
        self._out = out
        self._text = text
        self._since = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._shown = False
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Print a line above it."""
        with self._lock:
            self._erase()
            print(line, file=self._out, flush=True)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._erase()

    def _erase(self) -> None:
        if self._shown:
            self._out.write(ERASE)
            self._out.flush()
            self._shown = False

    def _run(self) -> None:
        self._ended.wait(PATIENCE)
        frame = 0
        while not self._ended.wait(EACH):
            with self._lock:
                seconds = time.monotonic() - self._since
                self._out.write(f"{ERASE}{FRAMES[frame % len(FRAMES)]}  {self._text} ({seconds:.0f} s)")
                self._out.flush()
                self._shown = True
            frame += 1
