"""What libraries log, as lines of our own: escaped, with tracebacks indented."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from treadle.lines import Logger, one_line, trace_of

# uvicorn says so of each link that is refused with an answer to its handshake, as it should be.
NOT_SO = "ASGI callable returned without completing handshake."
log = Logger()


class Teller(logging.Handler):
    """In the place of Python's handler of last resort, which writes all to standard error as it is.

    Texts and exceptions carry the words of users: whatever is written raw may look like a line of the log.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to tell it."""
        return record.msg != NOT_SO

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno >= logging.ERROR:
            log.error(one_line(_said(record).rstrip()), exc_info=error, logger=record.name)
        else:
            log.warning(one_line(_said(record).rstrip()), trace=trace_of(error), logger=record.name)


def _said(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # its arguments are not those of its text
        return f"{record.msg} {record.args}"


@contextmanager
def told() -> Iterator[None]:
    """Within this, warnings and errors of uvicorn, asyncio and others are told by our log."""
    teller, root = Teller(logging.WARNING), logging.getLogger()
    root.addHandler(teller)
    try:
        yield
    finally:
        root.removeHandler(teller)
