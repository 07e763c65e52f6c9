"""Whether a failed attempt is followed by another, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.model.deployment import QueueConfig
from treadle.model.task import FailureKind
from treadle.rules.retry import allowed, delay

K = FailureKind
# kind: retried when retryable, when not (retry_for leaves the exception out)
KINDS = {
    K.EXCEPTION: (True, False),
    K.OOM: (True, True),
    K.SIGNAL: (True, True),
    K.EXIT: (True, True),
    K.LOST: (True, True),
    K.INTERRUPTED: (True, True),
    K.RESULT: (False, False),
    K.TIMEOUT: (False, False),
    K.CANCELLED: (False, False),
    K.EXPIRED: (False, False),
}


@pytest.mark.parametrize("kind", K)
@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize(("attempts", "retries"), [(1, 0), (1, 1), (2, 1), (1, 3), (3, 3), (4, 3), (100, 100), (101, 100)])
def test_which_failures_are_retried(kind: FailureKind, retryable: bool, attempts: int, retries: int) -> None:
    """`retries=n` allows n more attempts after the first; `retry_for` narrows exceptions alone."""
    may_help = KINDS[kind][0 if retryable else 1]
    assert allowed(kind, attempts, retries, retryable=retryable) == (may_help and attempts <= retries)


@pytest.mark.parametrize(
    ("attempts", "first", "most", "low", "high"),
    [
        (1, 1.0, 60.0, 0.5, 1.0),
        (2, 1.0, 60.0, 1.0, 2.0),
        (6, 1.0, 60.0, 16.0, 32.0),
        (7, 1.0, 60.0, 30.0, 60.0),
        (1000, 1.0, 60.0, 30.0, 60.0),
        (3, 0.0, 60.0, 0.0, 0.0),
        (1, 10.0, 2.0, 1.0, 2.0),
    ],
)
def test_the_delay_doubles_up_to_its_cap(attempts: int, first: float, most: float, low: float, high: float) -> None:
    """Half of the exponential delay is sure, the other half is chance."""
    config = QueueConfig(handler="app:f", retry_delay=first, retry_delay_max=most)
    assert delay(attempts, config, 0.0) == low
    assert delay(attempts, config, 1.0) == high


@given(
    st.integers(1, 10_000), st.floats(0, 86_400), st.floats(0, 86_400), st.floats(0, 1, exclude_max=True)
)
def test_the_delay_has_bounds(attempts: int, first: float, most: float, chance: float) -> None:
    """Never negative, never over the cap, and no shorter after more attempts."""
    config = QueueConfig(handler="app:f", retry_delay=first, retry_delay_max=most)
    wait = delay(attempts, config, chance)
    assert 0 <= wait <= most
    assert delay(attempts + 1, config, chance) >= wait
