"""Every error Treadle tells a user: an HTTP status, a code, what happened, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

MAX_TOLD = 10  # of a list that an error tells
MAX_WORDS = 200  # characters of each


def sentence(text: str) -> str:
    """A text that somebody else has written, with a full stop unless it ends like a sentence."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def listed(things: Sequence[str]) -> str:
    """A list in a sentence, as far as an error should tell it: the first ones, and how many more there are."""
    told = ", ".join(thing if len(thing) <= MAX_WORDS else f"{thing[:MAX_WORDS]}…" for thing in things[:MAX_TOLD])
    return told if len(things) <= MAX_TOLD else f"{told} and {len(things) - MAX_TOLD} more"


class TreadleError(Exception):
    """Base of all errors that are meant to be read by a user.

    `status` is the HTTP status the server answers with, `code` a stable word for programs, `advice` the next step.
    """

    status = 500
    code = "internal"

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{sentence(self.message)} {self.advice}".strip()


class InvalidInput(TreadleError):
    """What came in does not have the form it must have (HTTP 400)."""

    status = 400
    code = "invalid"


class InvalidOption(InvalidInput, ValueError):
    """An option of a definition has a value that is not allowed; raised where it is declared."""

    code = "invalid_option"


class Unauthorized(TreadleError):
    """No token, or one that the server does not know (HTTP 401)."""

    status = 401
    code = "unauthorized"


class Forbidden(TreadleError):
    """A known token whose role does not allow this (HTTP 403)."""

    status = 403
    code = "forbidden"


class NotFound(TreadleError):
    """The thing named does not exist in this workspace (HTTP 404)."""

    status = 404
    code = "not_found"


class Conflict(TreadleError):
    """The state of things does not allow this now, e.g. a late report of a fenced attempt (HTTP 409)."""

    status = 409
    code = "conflict"


class TooLarge(TreadleError):
    """A body over its limit (HTTP 413)."""

    status = 413
    code = "too_large"


class QueueFull(TreadleError):
    """`max_pending_tasks` unfinished tasks exist already (HTTP 429)."""

    status = 429
    code = "queue_full"


class BuildFailed(TreadleError):
    """An image could not be built; the message names the package or Python version (HTTP 422)."""

    status = 422
    code = "build_failed"


class Unavailable(TreadleError):
    """The server cannot do this now: it is stopping, or no agent is connected (HTTP 503)."""

    status = 503
    code = "unavailable"


class NoSpace(TreadleError):
    """The disk of the data folder is full (HTTP 507). Nothing of this is written; what was accepted stays."""

    status = 507
    code = "no_space"

    def __init__(self, message: str = "", advice: str = "") -> None:
        super().__init__(
            message or "The disk of the server's data folder is full; nothing was written.",
            advice or "Make room on it. What was accepted before is safe, and goes on then.",
        )


class Unreachable(TreadleError):
    """No server answers at the URL (raised by the client only)."""

    status = 503
    code = "unreachable"


BY_CODE: dict[str, type[TreadleError]] = {
    kind.code: kind
    for kind in (
        TreadleError, InvalidInput, InvalidOption, Unauthorized, Forbidden, NotFound, Conflict, TooLarge,
        QueueFull, BuildFailed, Unavailable, NoSpace, Unreachable,
    )
}
