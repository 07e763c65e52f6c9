"""Worlds in which a promise was broken once. They are kept after the mend, and run with the tests.

What to do with a seed that fails (`make sim` tells it, shrunk): run it again with the command that is printed, mend the
engine, write a test for the engine alone where one can be written, and append the line that is printed to the table.
Each step names its action, so that an entry stays what it was when other actions are added or become more or less
frequent. It loses its meaning when the actions in it draw their dice anew: draw what is new last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Regression(NamedTuple):
    """A seed, its steps as `number:action`, and what was broken."""

    seed: int
    steps: str
    what: str

    @property
    def script(self) -> Mapping[int, str]:
        pairs = (step.split(":") for step in self.steps.split())
        return {int(number): action for number, action in pairs}


REGRESSIONS = (
    Regression(
        265,
        "29:submit 30:dial 39:flow 40:flow 41:flow 44:dial 47:flow 50:crash_server 73:stop_container "
        "142:flow 144:dial 147:blink",
        "Broken in the newest link counts",
    ),
)
