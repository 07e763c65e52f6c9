"""Between the event loop and the writer's thread: asks verbs, and carries out what their commits ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from threading import get_ident
from typing import Any, Protocol, TypeVar

from treadle.engine.assemble import Engine
from treadle.engine.effects import Effect, Linked, Printed, ScaleDue, Served, TaskEnded, ToAgent, ToRunner, WebhookDue
from treadle.engine.writer import AnyCall, AnyVerb, Call, Verb
from treadle.lines import Logger
from treadle.server.followers import Followers

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Ticket = Callable[[Answer | Exception], None]
PATIENCE = 0.001  # seconds: a commit of its own costs half of that
log = Logger()


class Link(Protocol):
    """An open WebSocket to a runner or an agent."""

    def send(self, message: Any) -> None:
        """Queue a message; all queued ones travel in one frame."""
        ...

    def fail(self) -> None:
        """Close it; the other side calls again."""
        ...


class Bridge:
    """Lives on the event loop, and is made there. `attach` must be called with the engine before the first `ask`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = get_ident()
        self._engine: Engine | None = None
        self.runners: dict[str, Link] = {}  # by container id
        self.agents: dict[str, Link] = {}  # by agent id
        self.opening: dict[int, Link] = {}  # to runners whose hello is not committed yet, by number
        self.agent_came = asyncio.Event()
        self.webhook_due = asyncio.Event()
        self.fleet_changed = asyncio.Event()
        self.delays_changed = asyncio.Event()
        self._due: float | None = None  # when the first delayed task may run, as of the last commit
        self._asked: list[AnyCall] = []
        self._last_call: asyncio.TimerHandle | None = None  # what is not urgent leaves by then
        self._handing = False  # what is asked leaves at the end of this turn
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self.followers = Followers()
        self._scaling = False

    def attach(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "attach() comes before the first request"
        return self._engine

    async def ask(self, verb: Verb[Request, Answer], request: Request, *, urgent: bool = True) -> Answer:
        """Run a verb; returns once its transaction is on disk. Raises what the verb answered as an error."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._put(Call(verb, request, partial(_resolve, future)), urgent)
        return await future

    def call(self, verb: Verb[Request, Answer], request: Request, ticket: Ticket[Answer]) -> None:
        """Run a verb and call back with its answer, or the error, once its transaction is on disk or failed."""
        self._put(Call(verb, request, ticket))

    def tell(
        self,
        verb: Verb[Request, Any],
        request: Request,
        failed: Callable[[], None] | None = None,
        *,
        urgent: bool = True,
    ) -> None:
        """Run a verb whose answer nobody waits for; `failed` is called when it was not written.

        What is not urgent goes with the next transaction of others, or after PATIENCE alone.
        """
        self._put(Call(verb, request, partial(_told, verb, failed)), urgent)

    def _put(self, call: AnyCall, urgent: bool = True) -> None:
        """Hand over what one turn of the loop asks in one piece: it becomes one transaction."""
        self._asked.append(call)
        if urgent and not self._handing:
            self._handing = True
            self._loop.call_soon(self._hand_over)
        elif len(self._asked) == 1:
            self._last_call = self._loop.call_later(PATIENCE, self._hand_over)

    def _hand_over(self) -> None:
        asked, self._asked, self._handing = self._asked, [], False
        if self._last_call is not None:
            self._last_call.cancel()  # it would cut short the patience of what is told next
            self._last_call = None
        if not asked:
            return
        if not self.engine.writer.run_here(asked):
            self.engine.writer.ask(asked)

    async def run(self, action: Callable[[float], Answer]) -> Answer:
        """Run one function of the engine, given the time, inside a transaction."""
        return await self.ask(_perform, action)

    def report(self, batch: Sequence[AnyCall], effects: Sequence[Effect]) -> None:
        """After a commit, on the writer's thread or our own."""
        if get_ident() == self._thread:
            self._settle(batch, effects)
        else:
            self._loop.call_soon_threadsafe(self._settle_of_thread, batch, effects)

    def _settle_of_thread(self, batch: Sequence[AnyCall], effects: Sequence[Effect]) -> None:
        self._settle(batch, effects)
        self.engine.writer.settled(batch)

    def _settle(self, batch: Sequence[AnyCall], effects: Sequence[Effect]) -> None:
        """Never raises: what goes wrong for one must not leave the others of the batch without an answer."""
        for effect in effects:
            try:
                self._carry_out(effect)
            except Exception:
                log.exception("what a commit asks for was not done", effect=type(effect).__name__)
        for call in batch:
            if call.ticket is not None:
                try:
                    call.ticket(call.answer)
                except Exception:
                    log.exception("an answer was not taken", verb=getattr(call.verb, "__name__", repr(call.verb)))
        due = self.engine.queue.next_due()
        if due != self._due:
            self._due = due
            self.delays_changed.set()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case ToRunner(container_id, message):
                if container_id in self.runners:
                    self.runners[container_id].send(message)
            case Linked(container_id, link):
                self._link(container_id, link)
            case TaskEnded(task_id):
                for waiter in self._waiters.pop(task_id, ()):
                    if not waiter.done():
                        waiter.set_result(None)
                self.followers.tell(effect)
            case Served() | Printed():
                self.followers.tell(effect)
            case ScaleDue():
                self.scale()
            case WebhookDue():
                self.webhook_due.set()
            case ToAgent(agent_id, message):
                self.fleet_changed.set()
                if agent_id in self.agents:
                    self.agents[agent_id].send(message)

    def _link(self, container_id: str, number: int) -> None:
        """The newest link is the one that counts. One before is closed: if it was not dead, its owner calls again."""
        link, before = self.opening.pop(number, None), self.runners.get(container_id)
        if link is not None:  # else it has closed already
            self.runners[container_id] = link
            if before is not None:
                before.fail()

    def scale(self) -> None:
        """Look at the fleet now; many calls before the look are one."""
        if not self._scaling:
            self._scaling = True
            self.tell(self._scale_once, None, self._scaled)

    def _scaled(self) -> None:
        self._scaling = False

    def _scale_once(self, now: float, requests: Sequence[None]) -> Sequence[None]:
        self._scaled()  # what is written after this look needs another; a transaction that is over never comes here
        return self.engine.scaler.scale(now, requests)

    def awaited(self, task_id: str) -> bool:
        """Whether somebody waits for the end of this task."""
        return task_id in self._waiters

    def waiter(self, task_id: str) -> asyncio.Future[None]:
        """Resolved when this task reaches a final state; hand it back to `forget_waiter`."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiters.setdefault(task_id, set()).add(future)
        return future

    def forget_waiter(self, task_id: str, future: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(task_id)
        if waiters is not None:
            waiters.discard(future)
            if not waiters:
                del self._waiters[task_id]


def _perform(now: float, actions: Sequence[Callable[[float], Answer]]) -> list[Answer | Exception]:
    return [action(now) for action in actions]


def _resolve(future: asyncio.Future[Any], answer: Any) -> None:
    if not future.done():  # the asker may have gone away
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _told(verb: AnyVerb, failed: Callable[[], None] | None, answer: Any) -> None:
    if isinstance(answer, Exception):
        log.error("a change was not written", verb=verb.__name__, error=repr(answer))
        if failed is not None:
            failed()
