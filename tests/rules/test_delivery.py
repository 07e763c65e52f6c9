"""When a webhook is tried again, as tables."""

from __future__ import annotations

from email.utils import format_datetime, formatdate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.model.task import Delivery, DeliveryStatus
from treadle.rules.delivery import ERROR_MAX, JITTER, RETRY_AFTER_MAX, SCHEDULE, Outcome, after_try, asked_wait

NOW = 1_770_112_809.0
FIRST = Delivery(
    id="msg_1", task_id="1", url="https://example.com/hook", status=DeliveryStatus.PENDING, due=NOW, created_at=NOW
)


def at_try(number: int) -> Delivery:
    return msgspec.structs.replace(FIRST, tries=number - 1)


def test_the_schedule_is_that_of_standard_webhooks() -> None:
    """Tries follow at 0, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h after the one before."""
    minute, hour = 60, 3600
    assert list(SCHEDULE) == [
        0, 5, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour
    ]


@pytest.mark.parametrize("number", range(1, len(SCHEDULE)))
def test_a_failed_try_is_followed_by_the_next_of_the_schedule(number: int) -> None:
    """After try n the delivery waits as long as the schedule says, with at most a tenth more."""
    earliest = after_try(at_try(number), Outcome(status=500), NOW, 0.0)
    latest = after_try(at_try(number), Outcome(status=500), NOW, 0.999)
    assert earliest.status is DeliveryStatus.PENDING
    assert earliest.tries == number
    assert earliest.due == NOW + SCHEDULE[number]
    assert earliest.due <= latest.due <= NOW + SCHEDULE[number] * (1 + JITTER)


@pytest.mark.parametrize("outcome", [Outcome(status=503), Outcome(error="refused"), Outcome(status=302)])
def test_the_last_try_of_the_schedule_ends_it(outcome: Outcome) -> None:
    """After ten failed tries the delivery is FAILED and its due time stays."""
    ended = after_try(at_try(len(SCHEDULE)), outcome, NOW, 0.5)
    assert (ended.status, ended.tries, ended.due) == (DeliveryStatus.FAILED, 10, FIRST.due)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_only_2xx_delivers(status: int) -> None:
    """An answer of 2xx on any try, the last too, is a delivery."""
    for number in (1, len(SCHEDULE)):
        ended = after_try(at_try(number), Outcome(status=status), NOW, 0.5)
        assert (ended.status, ended.delivered_at, ended.last_status) == (DeliveryStatus.DELIVERED, NOW, status)
        assert ended.last_error == ""


@pytest.mark.parametrize("status", [100, 199, 300, 301, 302, 307, 308, 400, 401, 404, 408, 409, 425, 429, 500, 503])
def test_any_other_answer_is_a_failure_to_be_tried_again(status: int) -> None:
    """Redirects, client errors and server errors are all tried again, and say their status."""
    after = after_try(FIRST, Outcome(status=status), NOW, 0.0)
    assert (after.status, after.due, after.last_status) == (DeliveryStatus.PENDING, NOW + 5, status)
    assert str(status) in after.last_error
    assert after.delivered_at is None


def test_gone_stops() -> None:
    """410 Gone ends the delivery on the first try."""
    ended = after_try(FIRST, Outcome(status=410, retry_after="5"), NOW, 0.0)
    assert (ended.status, ended.tries) == (DeliveryStatus.FAILED, 1)
    assert "410" in ended.last_error


def test_a_success_forgets_the_error_before_it() -> None:
    """The row tells of the last try alone."""
    failed = after_try(FIRST, Outcome(error="connection refused"), NOW, 0.0)
    assert (failed.last_status, failed.last_error) == (None, "connection refused")
    assert after_try(failed, Outcome(status=200), NOW + 5, 0.0).last_error == ""


def test_errors_are_kept_short_and_on_one_line() -> None:
    """Of a long error with line breaks one line of at most 200 characters is kept, and never nothing."""
    long = after_try(FIRST, Outcome(error="no\nroute " + "x" * 5000), NOW, 0.0).last_error
    assert long.startswith("no route x")
    assert len(long) == ERROR_MAX
    assert after_try(FIRST, Outcome(), NOW, 0.0).last_error == "The receiver did not answer."


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 0),
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("86400", 86_400),
        ("86401", RETRY_AFTER_MAX),
        ("9" * 5000, RETRY_AFTER_MAX),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("١٢", 0),
        (formatdate(NOW + 600, usegmt=True), 600),
        (formatdate(NOW - 600, usegmt=True), 0),
        (formatdate(NOW + 30 * 86_400, usegmt=True), RETRY_AFTER_MAX),
        ("Tue, 03 Feb 2026 10:10:09 -0000", 600),
        ("Tue, 03 Feb 2026 25:61:09 GMT", 0),
        ("Tue, 99 Foo 99999 10:10:09 GMT", 0),
    ],
)
def test_retry_after(header: str, seconds: float) -> None:
    """Retry-After is a number of seconds or an HTTP date, at most 24 hours; anything else says nothing."""
    assert asked_wait(header, NOW) == seconds


def test_retry_after_is_honoured_when_it_is_later_than_the_schedule() -> None:
    """The receiver can ask for more time, not for less."""
    assert after_try(FIRST, Outcome(status=429, retry_after="900"), NOW, 0.0).due == NOW + 900
    assert after_try(at_try(4), Outcome(status=503, retry_after="1"), NOW, 0.0).due == NOW + SCHEDULE[4]


@given(st.text(max_size=80))
def test_no_retry_after_header_breaks_the_schedule(header: str) -> None:
    """Whatever a receiver sends, the wait is from 0 to 24 hours."""
    assert 0 <= asked_wait(header, NOW) <= RETRY_AFTER_MAX


@given(st.datetimes(), st.floats(0, 4e9))
def test_no_date_breaks_the_schedule(when: object, now: float) -> None:
    """Any date, however far, gives a wait from 0 to 24 hours."""
    assert 0 <= asked_wait(format_datetime(when), now) <= RETRY_AFTER_MAX  # type: ignore[arg-type]
