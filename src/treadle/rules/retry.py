"""Whether a failed attempt is followed by another, and when."""

from __future__ import annotations

from treadle.model.deployment import QueueConfig
from treadle.model.task import FailureKind

NEVER = frozenset({FailureKind.TIMEOUT, FailureKind.CANCELLED, FailureKind.EXPIRED, FailureKind.RESULT})


def allowed(kind: FailureKind, attempts: int, retries: int, *, retryable: bool) -> bool:
    """`attempts` have been made, the last one failed. `retryable` is False when `retry_for` leaves it out.

    `retry_for` narrows exceptions only: crashes, out-of-memory kills and lost machines always retry. A return value
    that is not JSON does not: it would be the same again.
    """
    if kind in NEVER or attempts > retries:
        return False
    return retryable or kind is not FailureKind.EXCEPTION


def delay(attempts: int, config: QueueConfig, chance: float) -> float:
    """Seconds before the next attempt: doubles from `retry_delay`, at most `retry_delay_max`, half of it jittered.

    `chance` is in [0, 1). The form is "equal jitter": never less than half of the exponential delay.
    """
    full: float = min(config.retry_delay * 2.0 ** min(attempts - 1, 60), config.retry_delay_max)
    return full / 2 + full / 2 * chance
