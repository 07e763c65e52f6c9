"""What killed it: the failure told from a child's exit status and the memory counters."""

from __future__ import annotations

import signal

from treadle.model.deployment import more_memory
from treadle.model.task import Failure, FailureKind
from treadle.model.wire import Died, Finished, Raised

MIB = 1024 * 1024
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


def of_death(died: Died, memory: int) -> Failure:
    """Judge a death. `memory` is the deployment's limit in MiB.

    Only the counter of out-of-memory kills is evidence for one: a SIGKILL (or exit code 137) alone is not.
    """
    if died.oom_kills > 0:
        return Failure(FailureKind.OOM, _out_of_memory(died, memory * MIB))
    if died.status < 0:
        name = _signal_name(-died.status)
        return Failure(FailureKind.SIGNAL, f"the process was killed by signal {-died.status} ({name})")
    return Failure(FailureKind.EXIT, f"the process ended itself with exit code {died.status} during the task")


def _out_of_memory(died: Died, memory: int = 0) -> str:
    """What is told of an out-of-memory kill.

    It hit the task's own process (whose SIGKILL a container with pids of its own tells as exit code 137), or another.
    """
    limit = died.limit or memory
    where = "" if died.status in KILLED else " in a process that the task had started"
    peak = f"peak {_mib(died.peak)} at a limit of {_mib(limit)}" if died.peak > 0 else f"its limit is {_mib(limit)}"
    return f"out of memory{where}: {peak}. Give it more, e.g. {more_memory(died.peak, limit)}"


def _mib(count: int) -> str:
    return f"{count / MIB:.0f} MiB"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def of_report(finished: Finished, timeout: int, memory: int) -> tuple[Failure, bool]:
    """The failure that a runner's report stands for, and whether `retry_for` lets it be tried again.

    `timeout` (seconds) and `memory` (MiB) are the deployment's.
    """
    if finished.raised is not None:
        return of_exception(finished.raised), finished.raised.retryable
    if finished.died is not None:
        return of_death(finished.died, memory), True
    return of_timeout(timeout), True


def of_exception(raised: Raised) -> Failure:
    """A failure told by user code itself."""
    kind = FailureKind.RESULT if raised.not_json else FailureKind.EXCEPTION
    first_line = raised.message.split("\n", 1)[0]
    reason = f"{raised.type}: {first_line}" if first_line else raised.type
    reason = reason[:1000]
    if raised.oom is not None:
        reason += f" ({_out_of_memory(raised.oom)})"
    return Failure(kind, reason, raised.type, raised.message, raised.traceback)


def of_timeout(timeout: int) -> Failure:
    return Failure(FailureKind.TIMEOUT, f"ran longer than timeout={timeout} seconds and was killed")


def of_loss(reason: str) -> Failure:
    return Failure(FailureKind.LOST, f"lost: {reason}")


def of_interruption(reason: str) -> Failure:
    """What was cut off when its container was told to stop."""
    return Failure(FailureKind.INTERRUPTED, f"interrupted: {reason}")


CANCELLED = Failure(FailureKind.CANCELLED, "cancelled on request")
DELETED = Failure(FailureKind.CANCELLED, "cancelled: its deployment was deleted")


def of_expiry(ttl: int) -> Failure:
    return Failure(FailureKind.EXPIRED, f"waited longer than ttl={ttl} seconds")
