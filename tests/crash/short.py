"""A round of a campaign as a test runs it: one, short, of one kind, that has to have done something."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .ground import TESTS
from .rounds import APART, KILLS, SLOW

DEEDS = 60
SEED = 1
EFFECTS = {
    "kills": [*KILLS],
    "links": [*APART, "link faults"],
    "power": [*SLOW, "power cuts", "unsynced writes"],
    "full": [*SLOW, "times full"],
    "frozen": [*SLOW, "stopped", "came back"],
    "parted": [*SLOW, "partings"],
}  # of each kind of round: whom it has killed, and the facts of what else went wrong
ENDED = ("cancelled", "timed out")  # in every round; whether something waits until it expires is the machine's
LOAD = 100  # tasks accepted, and as many complete, in every round


def one_round(folder: Path, kind: str) -> None:
    """Fails unless the round held every promise, and its faults, all of them, came to pass under load."""
    figures = folder / "figures.json"
    rounds = folder / "rounds"
    rounds.mkdir()
    asked = {"count": 1, "deeds": DEEDS, "seed": SEED, "rounds": kind, "folder": rounds, "json": figures}
    flags = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    with subprocess.Popen(
        [sys.executable, "-m", "crash.campaign", *flags], cwd=TESTS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            told, _ = running.communicate(timeout=360)
        except subprocess.TimeoutExpired:
            running.terminate()  # not killed: it has to clear away what it has started
            raise
    assert running.returncode == 0, told
    said: dict[str, Any] = json.loads(figures.read_text())
    assert (said["rounds"], said["broken"]) == ({kind: 1}, []), told
    counts = said["kills"] | said["facts"]
    assert [effect for effect in (*EFFECTS[kind], *ENDED) if not counts.get(effect)] == [], told
    assert min(counts["accepted"], counts["complete"]) >= LOAD, told
    assert not list(rounds.iterdir())
