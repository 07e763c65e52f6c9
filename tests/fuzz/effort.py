"""How hard the fuzzing tries: few examples, always the same, in CI; FUZZ=N times as many, by chance, in `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

TIMES = int(os.environ.get("FUZZ", "0"))


def effort(examples: int) -> settings:
    """The settings of a test that CI tries with so many examples."""
    return settings(
        max_examples=examples * max(TIMES, 1),
        derandomize=not TIMES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=[phase for phase in Phase if phase is not Phase.explain],  # it costs minutes and says little
    )
