"""The parent: hands work to children, watches deadlines, judges deaths and reports. It never runs user code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from treadle.model.wire import (
    AttemptRef,
    Cancel,
    Finished,
    Hello,
    Lines,
    LoadFailed,
    Ready,
    Recall,
    Returned,
    RunnerToServer,
    RunSpec,
    ServerToRunner,
    Settled,
    Stop,
    Work,
)
from treadle.runner.dealing import Dealer
from treadle.runner.evidence import Evidence, how
from treadle.runner.frames import FromChild, Loaded
from treadle.runner.link import End, Link
from treadle.runner.pool import Child, Fate, Pool
from treadle.runner.printed import Printed
from treadle.runner.relay import Relay

# Exit codes, 2 and 5 as in Beam: ended as asked, lost its template, cannot load the handler, no server answers.
DONE, FAILED, CANNOT_LOAD, ORPHANED = 0, 1, 2, 5
TERM_GRACE = 10.0
SETTLE_SECONDS = 5.0
TOGETHER = 0.001  # seconds a report waits for others while more work is at hand: a frame costs as much as a task
MAX_DEATHS = 3  # in a row, of children that had no task


def run(spec: RunSpec, template: socket.socket, last_words: Path, listener: socket.socket | None) -> int:
    """Be the parent until the container shall end; returns the exit code. `last_words` is the file for the agent.

    `listener`: where children that have no network knock for the server.
    """
    return asyncio.run(_run(spec, template, last_words, listener))


async def _run(spec: RunSpec, template: socket.socket, last_words: Path, listener: socket.socket | None) -> int:
    relaying = asyncio.create_task(Relay(listener, spec.url).run()) if listener else None
    parent = Parent(spec, template, last_words)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_fault)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, parent.stop, TERM_GRACE)
    code = await parent.run()
    if relaying:
        relaying.cancel()
    return code


def _on_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A callback has failed, so what is known here may be wrong: end at once rather than hold tasks that nobody runs.

    The template takes the children along, the agent sees the end, and the attempts are retried elsewhere.
    """
    loop.default_exception_handler(context)  # the traceback, in the log whose end the agent reads
    if "handle" in context:
        os._exit(FAILED)


class Parent:
    """All that is known here of attempts: given out or waiting, or finished and not yet settled by the server."""

    def __init__(self, spec: RunSpec, template: socket.socket, last_words: Path) -> None:
        self._spec = spec
        self._last_words = last_words
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._printed = Printed(self._put_lines)
        self._pool = Pool(
            template,
            self._printed,
            workers=spec.config.workers,
            checkpoint=spec.config.checkpoint_enabled and sys.platform == "linux",
            on_messages=self._on_messages,
            on_exit=self._on_exit,
            on_template_end=self._on_template_end,
        )
        self._link = Link(spec, self._greet, self._on_server, self._printed.say)
        self._evidence = Evidence(spec, self._printed.say)
        self._dealer = Dealer()
        self._promised = 0  # free children that have died: the server counts them, so what replaces them is no news
        self._unsettled: dict[AttemptRef, Finished] = {}
        self._load_failed: LoadFailed | None = None
        self._deaths = 0
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._stop_at = float("inf")
        self._code = DONE

    async def run(self) -> int:
        """Hold the link and the children until a stop has come to its end or there is no link any more."""
        for _ in range(self._spec.config.workers):
            self._pool.fork()
        link = asyncio.create_task(self._link.run())
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait({link, over}, return_when=asyncio.FIRST_COMPLETED)
        if not link.done():
            await self._link.close()
        elif link.result() is End.ORPHANED and self._code == DONE:
            self._code = ORPHANED
            grace = self._spec.orphan_grace
            self._printed.say(f"no server at {self._spec.url} for {grace:g} seconds; ending")
        return self._code

    def stop(self, grace: float, code: int = DONE) -> None:
        """Take no more work; let what runs finish for `grace` seconds, deliver the reports, and end."""
        self._code = max(self._code, code)
        self._stop_at = min(self._stop_at, self._loop.time() + grace)
        self._give_back()
        if self._stopping is not None:
            self._stopping.cancel()
        self._stopping = asyncio.create_task(self._wind_down())

    async def _wind_down(self) -> None:
        await self._until(lambda: not self._dealer, self._stop_at)
        for ref in list(self._dealer):
            self._give_up(ref)
        await self._until(lambda: not self._unsettled, self._loop.time() + SETTLE_SECONDS)
        self._printed.send_own()
        if self._load_failed is not None:
            await self._link.sent.wait()
        elif self._link.connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    await self._link.sent.wait()
        self._over.set()

    async def _until(self, done: Callable[[], bool], deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()

    # what the server says

    def _greet(self) -> list[RunnerToServer]:
        """The whole state in the first messages of a connection; free children are counted in Hello alone."""
        held = [*self._dealer, *self._unsettled]
        free = 0 if self._stopping else self._dealer.free()
        self._promised = 0
        hello = Hello(self._spec.container_id, held, free, isolation=self._spec.sandbox.level)
        greeting: list[RunnerToServer] = [hello, *self._printed.greet()]
        greeting += [replace(finished, free=False) for finished in self._unsettled.values()]
        if self._load_failed is not None:
            greeting.append(self._load_failed)
        return greeting

    def _on_server(self, messages: list[ServerToRunner]) -> None:
        for message in messages:
            match message:
                case Work(ref):
                    if not (self._stopping or ref in self._dealer or ref in self._unsettled):
                        self._dealer.add(message)
                case Settled(refs):
                    for ref in refs:
                        self._unsettled.pop(ref, None)
                case Cancel(ref):
                    self._give_up(ref)
                case Recall():
                    self._give_back()
                case Stop(grace):
                    self.stop(grace)
        self._go_on()

    def _go_on(self) -> None:
        """Once after all that has come together: give work out, and see to the deadlines of what runs."""
        self._dealer.deal(self._loop.time())
        self._changed.set()
        timeout = self._spec.config.timeout
        if timeout > 0 and self._alarm is None and (working := self._dealer.since()):
            first = min(since for since, _ in working)
            self._alarm = self._loop.call_at(first + timeout, self._on_alarm)

    def _give_up(self, ref: AttemptRef) -> None:
        """End an attempt, whose report nobody wants: before it begins, or with the child that runs it."""
        child = self._dealer.holder(ref)
        if child is not None:
            self._halt(child)
        if self._dealer.drop(ref):
            self._link.put(Ready(1))  # the child it would have had
        elif child is not None and ref in self._dealer:
            self._dealer.leave(child)
            self._pool.kill(child, Fate.UNWANTED)
            self._printed.drop(ref)

    def _halt(self, child: Child) -> None:
        """Have a child begin no more, and hear what it has ended until now: the rest of its hand is what it runs."""
        self._dealer.take_back(child)
        self._note(child, self._pool.hear(child))

    def _give_back(self) -> None:
        """Drop what has not begun, and say so; without a link the next greeting does not name it."""
        self._dealer.take_all_back()
        if refs := self._dealer.empty():
            self._link.put(Returned(refs))

    # what the children say

    def _on_messages(self, child: Child, messages: list[FromChild]) -> None:
        self._note(child, messages)
        self._go_on()

    def _note(self, child: Child, messages: list[FromChild]) -> None:
        now = self._loop.time()
        for message in messages:
            match message:
                case Finished():
                    child.output.ended(message.ref)
                    self._dealer.ended(child, message.ref, now)
                    self._on_finished(child, message)
                case Ready():
                    self._on_loaded(child)
                    self._dealer.join(child)
                    self._tell_free(message)
                case Loaded(""):
                    self._on_loaded(child)
                    self._pool.copy(child)
                case Loaded(trouble):
                    self._printed.say(f"no checkpoint: {trouble}. Each worker loads for itself", starting=True)
                    self._pool.do_without_checkpoint(child)
                case LoadFailed():
                    child.fate = Fate.BROKEN
                    self._printed.send_own()
                    self._fail(message)

    def _on_loaded(self, child: Child) -> None:
        child.loaded = True
        self._printed.send_own()
        child.output.starting = False
        if self._dealer.alone(child):
            self._evidence.forget()

    def _tell_free(self, ready: Ready) -> None:
        if self._promised:
            self._promised -= 1
        elif not self._stopping:
            self._link.put(ready)

    def _on_finished(self, child: Child, finished: Finished) -> None:
        self._deaths = 0
        finished = self._evidence.of_end(finished, alone=self._dealer.alone(child))
        self._report(replace(finished, free=False) if self._stopping else finished)

    def _report(self, finished: Finished) -> None:
        self._unsettled[finished.ref] = finished
        self._link.put(finished, TOGETHER if self._dealer.busy() else 0.0)

    def _put_lines(self, lines: Lines) -> bool:
        if self._link.connected:
            self._link.put(lines, TOGETHER)  # their attempt's end may be next
        return self._link.connected

    def _on_alarm(self) -> None:
        """Kill who is past its deadline. One timer serves all: most tasks are over long before it rings."""
        self._alarm = None
        limit = self._loop.time() - self._spec.config.timeout
        for since, child in self._dealer.since():
            if since <= limit:
                self._on_overdue(child, child.hand[0].ref)
        self._go_on()

    def _on_overdue(self, child: Child, ref: AttemptRef) -> None:
        self._halt(child)
        if self._dealer.holder(ref) is child:
            self._pool.kill(child, Fate.TIMED_OUT)
        elif ref in self._dealer:  # it has not even begun: no fault of this task
            self._pool.kill(child, Fate.STUCK)

    # how the children end

    def _on_exit(self, child: Child, last: list[FromChild], status: int) -> None:
        self._note(child, last)
        ref = self._dealer.leave(child)
        if ref is not None:
            timed_out = child.fate is Fate.TIMED_OUT
            died = None if timed_out else self._evidence.of_death(status, alone=self._dealer.alone(child))
            self._printed.end(ref, how(died) if died else f"killed: timeout={self._spec.config.timeout} s is over")
            self._report(Finished(ref, died=died, timed_out=timed_out))
        elif child.fate in (None, Fate.STUCK):
            self._promised += child.loaded and not child.checkpoint
            self._on_needless_death(child, status)
        if not self._stopping:
            self._pool.replace(child)
        self._go_on()

    def _on_needless_death(self, child: Child, status: int) -> None:
        """A child that had no task is replaced, but not for ever."""
        self._deaths += 1
        told = how(self._evidence.of_death(status, alone=self._dealer.alone(child)))
        when = (
            ("as the checkpoint" if child.checkpoint else "between tasks")
            if child.loaded
            else "while loading the handler"
        )
        self._printed.say(f"a process ended {when}: {told}", starting=child.output.starting)
        if self._deaths >= MAX_DEATHS:
            times = f"{self._deaths} times in a row"
            self._fail(LoadFailed(f"the process ended {when}, {times}, the last time by: {told}"))

    def _on_template_end(self, last_words: LoadFailed | None) -> None:
        if last_words is not None:
            self._fail(last_words)
        self._printed.say("the template process has ended; ending the container")
        self.stop(0, FAILED)

    def _fail(self, message: LoadFailed) -> None:
        """This container can never work: say so, once, and end.

        The agent is told by a file: the server, once it knows, may have this process killed before it has ended.
        """
        if self._load_failed is None:
            self._load_failed = message
            with contextlib.suppress(OSError):  # no room on the disk: the exit code is left to tell
                self._last_words.write_text(f"could not load the handler: {' '.join(message.reason.split())}\n")
            self._link.put(message)
            self.stop(TERM_GRACE, CANNOT_LOAD)
