"""Serving: a function in a file becomes a URL while it is written; saving the file replaces it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from treadle.client import Client
from treadle.lines import one_line
from treadle.model.api import Deployed, LogLine, ServeNews, ServeRequest, TaskEnd
from treadle.model.deployment import QueueConfig
from treadle.model.errors import InvalidInput, TreadleError, Unavailable
from treadle.model.settings import Settings, load
from treadle.sdk.console import Console, amount
from treadle.sdk.local import ensure_server
from treadle.sdk.prepare import build_image
from treadle.sdk.prepared import curl
from treadle.sdk.printed import shown

STEP = 20  # milliseconds without another change, then a save is complete
TOGETHER = 200  # milliseconds: what changes within them is one save at most
LOOK = 500  # milliseconds between looks at how long nothing has been saved


def serve(target: str, console: Console, timeout: float = 0) -> None:
    """Serve a `FILE.py:FUNC` until Ctrl-C, or until nothing was saved for `timeout` seconds if that is above 0.

    Raises:
        TreadleError: it cannot be served, or its session has ended, but not here.
    """
    settings = ensure_server(load(), console)
    with Drafts(target, settings) as drafts:
        session = Session(console, settings, drafts)
        try:
            session.start()
            with contextlib.suppress(KeyboardInterrupt):
                session.watch(Path.cwd(), timeout)
        finally:
            session.end()


class Order(msgspec.Struct, frozen=True):
    """Where the packed source goes, and what is no part of it."""

    url: str
    token: str
    exclude: str


class Draft(msgspec.Struct, frozen=True):
    """What the file defines now, or the error: then all else is empty."""

    config: QueueConfig | None = None
    source_id: str = ""
    files: int = 0
    size: int = 0
    skipped: tuple[str, ...] = ()
    error: str = ""
    advice: str = ""


class Drafts:
    """Processes that tell what the file defines; one always waits, so that none has to be started for a save."""

    def __init__(self, target: str, settings: Settings) -> None:
        self._command = [sys.executable, "-m", "treadle.sdk.drafting", target]
        order = Order(settings.url, settings.token, str(settings.data))
        self._order = msgspec.json.encode(order) + b"\n"
        self._waiting: subprocess.Popen[bytes] | None = None
        self.wait_with_one()

    def __enter__(self) -> Drafts:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting is not None:
            self._waiting.kill()
            self._waiting.communicate()

    def wait_with_one(self) -> None:
        """Start the process for the next save, unless it waits already. It is no part of what Ctrl-C interrupts."""
        if self._waiting is None:
            pipe = subprocess.PIPE
            self._waiting = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, start_new_session=True)

    def next(self) -> Draft:
        """What the file defines now.

        Raises:
            TreadleError: it cannot be imported, has no such function, or the server did not take the source.
        """
        self.wait_with_one()
        assert self._waiting is not None, "just started"
        process, self._waiting = self._waiting, None
        try:
            out, _ = process.communicate(self._order)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        try:
            draft = msgspec.json.decode(out, type=Draft)
        except msgspec.DecodeError:
            raise InvalidInput("The process that imported the file has ended without a word.") from None
        if draft.error:
            raise InvalidInput(draft.error, draft.advice)
        return draft


class Session:
    """What is served, from the first draft to the end."""

    def __init__(self, console: Console, settings: Settings, drafts: Drafts) -> None:
        self._console = console
        self._settings = settings
        self._client = Client(settings.url, settings.token)
        self._drafts = drafts
        self._request: ServeRequest | None = None
        self._deployed: Deployed | None = None
        self._over = threading.Event()
        self._error: TreadleError | None = None
        self._saved: float | None = None  # when the code that is being started was saved

    def start(self) -> None:
        """Serve the first draft and say how it is called."""
        self._console.step("Syncing files")
        request = self._draft()
        self._deployed = self._client.serve(request)
        threading.Thread(target=self._follow, args=(self._deployed.deployment_id,), daemon=True).start()
        self._console.step("Invocation details")
        self._console.say(curl(self._deployed, self._settings.token))
        self._console.step("Serving; saving a file reloads it, Ctrl-C ends it")
        self._drafts.wait_with_one()

    def _draft(self) -> ServeRequest:
        draft = self._drafts.next()
        assert draft.config is not None, "a draft without an error has one"
        before = self._request
        if before is not None and before.config.image == draft.config.image:
            image_id = before.image_id
        else:
            for reason in draft.skipped:
                self._console.warn(f"Left out {reason}")
            files = f"{draft.files} {'file' if draft.files == 1 else 'files'}"
            self._console.step(f"Files synced ({files}, {amount(draft.size)})")
            image_id = build_image(self._client, draft.config.image, self._console)
        self._request = ServeRequest(draft.config, draft.source_id, image_id)
        return self._request

    def watch(self, root: Path, timeout: float = 0) -> None:
        """Reload at each save, until it is served no more, or for `timeout` seconds (if above 0) nothing was saved.

        Raises:
            TreadleError: it has ended, but not here.
        """
        from watchfiles import DefaultFilter, watch  # noqa: PLC0415 - only this command needs it

        only = DefaultFilter(ignore_paths=[self._settings.data])
        last = time.monotonic()
        for changes in watch(
            root, watch_filter=only, debounce=TOGETHER, step=STEP, stop_event=self._over, rust_timeout=LOOK,
            yield_on_timeout=timeout > 0,
        ):  # fmt: skip
            if changes:
                self._reload()
                last = time.monotonic()
            elif time.monotonic() - last >= timeout:
                self._console.step(f"Nothing was saved for {timeout:g} seconds")
                return
        raise self._error or Unavailable("It is not served any more.", "Somebody has ended it; start it again.")

    def _reload(self) -> None:
        saved, before = time.monotonic(), self._request
        try:
            request = self._draft()
            if request != before and self._deployed is not None:
                self._saved = saved
                self._client.reload(self._deployed.deployment_id, request)
        except TreadleError as error:
            self._request = before
            self._console.warn(f"{error} The code before it goes on.")
        finally:
            self._drafts.wait_with_one()

    def end(self) -> None:
        """Serve it no more, and leave nothing behind."""
        if self._deployed is None or self._over.is_set():
            return
        self._over.set()
        self._client.end_serve(self._deployed.deployment_id)
        self._console.step("Served no more; its containers are stopped")

    def _follow(self, deployment_id: str) -> None:
        """Show what happens, on a thread of its own."""
        show: dict[type, Callable[..., None]] = {
            LogLine: self._show_line, TaskEnd: self._show_end, ServeNews: self._show_news
        }  # fmt: skip
        try:
            for one in Client(self._settings.url, self._settings.token).follow_served(deployment_id):
                if not self._over.is_set():
                    show[type(one)](one)
        except TreadleError as error:
            self._error = error
        self._over.set()

    def _show_line(self, line: LogLine) -> None:
        self._console.say(f"{_mark(line.task_id)} | {shown(line, timestamps=False)}")

    def _show_end(self, end: TaskEnd) -> None:
        took = "" if end.seconds is None else f" in {end.seconds:.2f} s"
        why = f": {one_line(end.failure_reason)}" if end.failure_reason else ""
        self._console.say(f"{_mark(end.task_id)} = {end.status}{took}{why}")

    def _show_news(self, news: ServeNews) -> None:
        if news.kind == "failed":
            self._console.warn(f"{news.text}. The code before it goes on.")
            return
        took = "" if self._saved is None else f" ({(time.monotonic() - self._saved) * 1000:.0f} ms after the save)"
        self._saved = None
        self._console.step(f"Ready{took}")


def _mark(task_id: str) -> str:
    """The end of an id, which tells tasks apart better than its beginning, a time."""
    return task_id[-6:] if task_id else "start "
