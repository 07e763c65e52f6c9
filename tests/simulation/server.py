"""The server of the simulated world: the real engine, with every step between it and its links taken one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from engine.making import NOW, BreakableStore, furnish
from treadle.engine.assemble import Chance, Engine, assemble
from treadle.engine.effects import Effect, Linked, ScaleDue, ToAgent, ToRunner
from treadle.engine.fleet import Connected, Disconnected, Freed, Gone
from treadle.engine.queue import GivenBack, Report
from treadle.engine.writer import AnyCall, Call
from treadle.model.errors import NoSpace, TreadleError
from treadle.model.wire import Beat, Exited, Finished, LoadFailed, Ready, Returned
from treadle.store.invariants import Breach

from .ledger import Broken, Ledger
from .machines import Runner, Wire


class Server:
    """What `server.bridge` and `server.links` do, as steps."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.random = Random(f"{seed}")
        self.now = NOW
        self.lived = 0.0  # seconds that have passed, whatever the clock was set to
        self.path = folder / "treadle.db"
        self._number = 0
        self._kind = True  # no mishaps, while the world is made and at its end
        self.store = BreakableStore.fresh(self.path)
        self.workspace = furnish(self.store)
        self.ledger = Ledger(self.path)
        self.pending: list[AnyCall] = []  # asked and not yet run
        self.outgoing: list[tuple[Sequence[AnyCall], Sequence[Effect]]] = []  # committed and not yet delivered
        self.serving: list[Wire] = []  # links as the server sees them
        self.links: dict[str, Wire] = {}  # the newest of each runner and agent
        self.opening: dict[int, Wire] = {}  # of runners, whose hello is not committed yet
        self._start_server()

    def close(self) -> None:
        self.ledger.close()
        self.store.close()

    def _start_server(self) -> None:
        chance = Chance(
            clock=lambda: self.now,
            jitter=self.random.random,
            secret=lambda: f"secret-{self._next()}",
            suffix=lambda: f"{self._next():08x}",
            random=self.random.randbytes,
        )
        self._scaling = self._draining = False
        self.engine: Engine = assemble(self.store, self.path.parent, self.workspace, chance, self._committed)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def ask(self, verb: Callable[..., Any], request: Any = None, ticket: Callable[[Any], None] | None = None) -> None:
        self.pending.append(Call(verb, request, ticket))

    def do(self, verb: Callable[..., Any], failed: Callable[[], None] = lambda: None) -> None:
        """What the server does by itself: it fails with a full disk, and never otherwise."""

        def settle(answer: Any) -> None:
            works = not isinstance(answer, Exception) or isinstance(answer, NoSpace)
            assert works, f"the server comes to grief by itself: {answer!r}"
            if isinstance(answer, Exception):
                failed()

        self.ask(verb, None, settle)

    def _committed(self, batch: Sequence[AnyCall], effects: Sequence[Effect]) -> None:
        self.outgoing.append((batch, effects))
        self.ledger.check(self.engine, self.now, self.lived, effects)

    def run_batch(self) -> None:
        """The writer takes what waits, or the first of it."""
        if self.pending:
            size = len(self.pending) if self._kind else self.random.randint(1, len(self.pending))
            batch, self.pending = self.pending[:size], self.pending[size:]
            self.ledger.begin_batch()
            self._hear_of(batch)
            self.engine.writer.run(batch)

    def _hear_of(self, batch: Sequence[AnyCall]) -> None:
        """Whose runners the server hears of by a batch, whether it can be written or not."""
        for call in batch:
            if call.verb == self.engine.fleet.beat:
                self.ledger.leases.heard(call.request, self.lived)
            elif call.verb == self.engine.fleet.connect:
                container_id = call.request.hello.container_id
                if not self.engine.hints.slots.overtaken(container_id, call.request.link):
                    self.ledger.leases.heard(container_id, self.lived)

    def carry_out(self) -> None:
        """The event loop gets the oldest batch that was committed."""
        if not self.outgoing:
            return
        batch, effects = self.outgoing.pop(0)
        for effect in effects:
            if isinstance(effect, ToRunner | ToAgent):
                name = effect.container_id if isinstance(effect, ToRunner) else effect.agent_id
                if name in self.links:
                    self.links[name].down.append(effect.message)
            elif isinstance(effect, Linked):
                self._linked(effect)
            elif isinstance(effect, ScaleDue):
                self._scale()
        for call in batch:
            if call.ticket is not None:
                call.ticket(call.answer)

    def _linked(self, effect: Linked) -> None:
        wire, before = self.opening.pop(effect.link, None), self.links.get(effect.container_id)
        if wire is not None:
            self.links[effect.container_id] = wire
            if before is not None:
                if wire.number < before.number:
                    raise Broken(Breach("the newest link counts", effect.container_id, "an older one took its place"))
                self._drop(before)

    def _scale(self) -> None:
        if not self._scaling:
            self._scaling = True
            self.do(self._scale_once, self._scaled)

    def _scaled(self) -> None:
        self._scaling = False

    def _scale_once(self, now: float, requests: Sequence[None]) -> Sequence[None]:
        self._scaled()
        return self.engine.scaler.scale(now, requests)

    def read(self) -> None:
        """The server takes a message from a link, or notices its end."""
        if self.serving:
            self._read(self.random.choice(self.serving))

    def flow(self) -> None:
        """Some of what is under way moves on."""
        for move in (self.read, self.read, self.run_batch, self.carry_out, self.hear, self.hear, self.work):
            for _ in range(self.random.randint(0, 2)):
                move()

    def _read(self, wire: Wire) -> None:
        if wire.hung_up or (wire.asked and not wire.greeted):
            return
        if not wire.up:
            if not wire.is_open:
                self._closed(wire)
            return
        message = wire.up.popleft()
        if not wire.asked:
            self._greet(wire, message)
        elif isinstance(wire.owner, Runner):
            self._from_runner(wire, wire.owner.id, message)
        elif isinstance(message, Exited):
            gone = Gone(message.container_id, message.reason, message.failed)
            self.ask(self.engine.fleet.gone, gone, self._or_close(wire))

    def _greet(self, wire: Wire, message: Any) -> None:
        wire.asked = True
        if isinstance(wire.owner, Runner):
            self.opening[wire.number] = wire
            self.ask(self.engine.fleet.connect, Connected(message, wire.number), lambda a: self._greeted(wire, a))
        else:
            wire.owner.hello = message
            before, self.links[wire.owner.id] = self.links.get(wire.owner.id), wire
            if before is not None:
                self._drop(before)
            self.ask(self.engine.fleet.agent_connected, message, lambda a: self._greeted(wire, a))

    def _greeted(self, wire: Wire, answer: Any) -> None:
        wire.greeted = True
        if isinstance(answer, Exception):
            wire.refused = isinstance(answer, TreadleError)
            self._drop(wire)

    def _from_runner(self, wire: Wire, container_id: str, message: Any) -> None:
        engine = self.engine
        match message:
            case Finished():
                self.ask(engine.queue.finish, Report(container_id, message, wire.number), self._or_close(wire))
            case Returned(refs):
                self.ask(engine.queue.take_back, GivenBack(container_id, refs, wire.number), self._or_close(wire))
            case Ready():
                self.ask(engine.fleet.freed, Freed(container_id, message, wire.number), self._or_close(wire))
            case Beat():
                self.ask(engine.fleet.beat, container_id)
            case LoadFailed(reason):
                self.ask(engine.fleet.load_failed, Gone(container_id, reason, failed=True), self._or_close(wire))

    def _or_close(self, wire: Wire) -> Callable[[Any], None]:
        def settle(answer: Any) -> None:
            if isinstance(answer, Exception):
                self._drop(wire)

        return settle

    def _drop(self, wire: Wire) -> None:
        """The server closes a link. Its owner learns of it later, and talks on until then."""
        wire.hung_up = True
        self._tear(wire.down)
        self._closed(wire)

    def _tear(self, under_way: deque[Any]) -> None:
        """What was sent last is lost: a link keeps the order, so all before it arrives."""
        for _ in range(self.random.choice([0, len(under_way), self.random.randint(0, len(under_way))])):
            under_way.pop()

    def _closed(self, wire: Wire) -> None:
        if wire not in self.serving:
            return
        self.serving.remove(wire)
        self.opening.pop(wire.number, None)
        counts = self.links.get(wire.owner.id) is wire
        if counts:
            del self.links[wire.owner.id]
        if isinstance(wire.owner, Runner):
            self.ask(self.engine.fleet.disconnected, Disconnected(wire.owner.id, wire.number))
        elif counts:
            self.ask(self.engine.fleet.agent_gone, wire.owner.hello)

    def crash_server(self) -> None:
        """Between any two steps, so also between a commit and what it asks for."""
        for wire in self.serving:
            wire.hung_up = True
            self._tear(wire.down)
        for lost in (self.pending, self.outgoing, self.serving, self.links, self.opening):
            lost.clear()
        self.store.close()
        self.store = BreakableStore.open(self.path)
        self._start_server()
