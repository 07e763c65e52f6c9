"""When a webhook is tried again, and when it is given up."""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from treadle.model.task import Delivery, DeliveryStatus

# Seconds to wait before each try, counted from the end of the try before it (the schedule of Standard Webhooks).
SCHEDULE = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
JITTER = 0.1  # a wait is lengthened by up to this share, so that the tries of one bad minute spread out
RETRY_AFTER_MAX = 86_400.0
ERROR_MAX = 200  # characters kept of why a try failed
GONE = 410


class Outcome(msgspec.Struct, frozen=True):
    """How one try ended: the receiver's HTTP `status`, or the `error` that kept it from answering.

    `retry_after` is the receiver's Retry-After header as it came.
    """

    status: int | None = None
    error: str = ""
    retry_after: str = ""


def after_try(delivery: Delivery, outcome: Outcome, now: float, chance: float) -> Delivery:
    """The delivery after one more try that ended at `now`. `chance` in [0, 1) is the jitter."""
    tries = delivery.tries + 1
    seen = msgspec.structs.replace(
        delivery, tries=tries, last_status=outcome.status, last_error=explain(outcome)
    )
    if succeeded(outcome):
        return msgspec.structs.replace(seen, status=DeliveryStatus.DELIVERED, delivered_at=now)
    if outcome.status == GONE or tries >= len(SCHEDULE):
        return msgspec.structs.replace(seen, status=DeliveryStatus.FAILED)
    wait = SCHEDULE[tries] * (1 + JITTER * chance)
    return msgspec.structs.replace(seen, due=now + max(wait, asked_wait(outcome.retry_after, now)))


def succeeded(outcome: Outcome) -> bool:
    """Only an answer of 2xx is a success; a redirect is not, because it is not followed."""
    return outcome.status is not None and 200 <= outcome.status < 300


def explain(outcome: Outcome) -> str:
    """One short line for people; empty for a success."""
    if succeeded(outcome):
        return ""
    if outcome.status is None:
        return " ".join(outcome.error.split())[:ERROR_MAX] or "The receiver did not answer."
    if 300 <= outcome.status < 400:
        return f"HTTP {outcome.status}: redirects are not followed; set the URL it redirects to."
    if outcome.status == GONE:
        return "HTTP 410: the receiver wants no more tries."
    return f"HTTP {outcome.status}"


def asked_wait(retry_after: str, now: float) -> float:
    """Seconds a Retry-After header asks for (a number or an HTTP date), from 0 to 24 h; 0 if it says nothing."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        # int() refuses very long runs of digits; six are more than the cap already.
        seconds = float(text) if len(text) <= 6 else math.inf
    else:
        seconds = _http_date(text, now) - now
    return min(max(seconds, 0.0), RETRY_AFTER_MAX)


def _http_date(text: str, otherwise: float) -> float:
    try:
        when = parsedate_to_datetime(text)
        # A date without a zone is UTC: HTTP knows no other.
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return otherwise
