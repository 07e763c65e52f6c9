"""What is told about the end of an attempt."""

from __future__ import annotations

import signal

import pytest

from treadle.model.task import Failure, FailureKind
from treadle.model.wire import Died, Raised
from treadle.rules import exits

MIB = 1024 * 1024
K = FailureKind


@pytest.mark.parametrize(
    ("died", "kind", "reason"),
    [
        (Died(3), K.EXIT, "the process ended itself with exit code 3 during the task"),
        (Died(0), K.EXIT, "the process ended itself with exit code 0 during the task"),
        (Died(137), K.EXIT, "the process ended itself with exit code 137 during the task"),
        (Died(-signal.SIGKILL), K.SIGNAL, "the process was killed by signal 9 (SIGKILL)"),
        (Died(-signal.SIGSEGV), K.SIGNAL, "the process was killed by signal 11 (SIGSEGV)"),
        (Died(-250), K.SIGNAL, "the process was killed by signal 250 (unknown)"),
        (
            Died(-signal.SIGKILL, oom_kills=1, peak=127 * MIB, limit=128 * MIB),
            K.OOM,
            'out of memory: peak 127 MiB at a limit of 128 MiB. Give it more, e.g. memory="256Mi"',
        ),
        (
            Died(1, oom_kills=2, peak=0, limit=0),
            K.OOM,
            "out of memory in a process that the task had started: its limit is 128 MiB. "
            'Give it more, e.g. memory="256Mi"',
        ),
        (
            Died(137, oom_kills=1, peak=700 * MIB, limit=512 * MIB),
            K.OOM,
            'out of memory: peak 700 MiB at a limit of 512 MiB. Give it more, e.g. memory="1Gi"',
        ),
    ],
)
def test_what_killed_it(died: Died, kind: FailureKind, reason: str) -> None:
    """Only the counter of the kernel or the watchdog speaks for a lack of memory; SIGKILL alone does not."""
    assert exits.of_death(died, memory=128) == Failure(kind, reason)


@pytest.mark.parametrize(
    ("raised", "kind", "reason"),
    [
        (Raised("ValueError", "no", "tb"), K.EXCEPTION, "ValueError: no"),
        (Raised("ValueError", "", "tb"), K.EXCEPTION, "ValueError"),
        (Raised("ValueError", "one\ntwo", "tb"), K.EXCEPTION, "ValueError: one"),
        (Raised("TypeError", "not JSON: set", "", not_json=True), K.RESULT, "TypeError: not JSON: set"),
    ],
)
def test_what_user_code_raised(raised: Raised, kind: FailureKind, reason: str) -> None:
    """The reason is one line; type, whole message and traceback are kept beside it."""
    failure = exits.of_exception(raised)
    assert (failure.kind, failure.reason) == (kind, reason)
    assert (failure.type, failure.message, failure.traceback) == (raised.type, raised.message, raised.traceback)


def test_an_exception_says_if_memory_ran_out_for_what_the_task_had_started() -> None:
    """It stays an exception, which `retry_for` may name; the advice comes with it."""
    oom = Died(0, oom_kills=1, peak=128 * MIB, limit=128 * MIB)
    failure = exits.of_exception(Raised("CalledProcessError", "Command 'ffmpeg' died", "tb", oom=oom))
    assert failure.kind is K.EXCEPTION
    assert failure.reason == (
        "CalledProcessError: Command 'ffmpeg' died (out of memory in a process that the task had started: "
        'peak 128 MiB at a limit of 128 MiB. Give it more, e.g. memory="256Mi")'
    )


def test_a_reason_has_an_end() -> None:
    """A message of a megabyte does not become a reason of a megabyte."""
    assert len(exits.of_exception(Raised("E", "x" * 1_000_000, "")).reason) == 1000


def test_the_reasons_of_the_server() -> None:
    """They name the limit that was reached."""
    assert exits.of_timeout(5).reason == "ran longer than timeout=5 seconds and was killed"
    assert exits.of_expiry(7).reason == "waited longer than ttl=7 seconds"
    assert exits.of_loss("no heartbeat for 15 seconds").reason == "lost: no heartbeat for 15 seconds"
    assert Failure(K.CANCELLED, "cancelled on request") == exits.CANCELLED
