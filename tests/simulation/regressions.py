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
    Regression(  # no promise was broken: a webhook was answered and its task forgotten in one batch, and the ledger cried
        1210,
        "25:submit 27:dial 55:hush 61:tick 96:deliver 118:flow 120:pass_time 121:pass_time 127:flow 128:pass_time "
        "129:flow 130:flow 134:flow 138:pass_time 142:deliver 147:forget",
        "AssertionError in _forget",
    ),
    Regression(15, "55:dial 62:rest 64:dial 66:flow 73:stay_full", "AssertionError in _given_up"),
    Regression(8497, "147:deliver 148:redeploy 149:flow", "Broken in relations"),
)
