"""Who gets what is free, and who makes room: one look at a fleet in which more is wanted than there is.

Shares are dominant ones (Ghodsi et al., "Dominant Resource Fairness", NSDI 2011): the part of all memory or of all
GPUs that a deployment's containers hold, whichever is greater. What is free goes to the smallest share first. A
deployment that finds none free and has work makes others give way:

1. containers that have been idle for IDLE_SECONDS stop, whatever the shares;
2. containers at work finish what they run and take no more, where their deployment is left with no smaller a share
   than the one that asks would have: that ends when all that want more have about the same;
3. a deployment that holds nothing at all also takes the turn of one that has had its own: containers that have worked
   for TURN_SECONDS, or three times as long as they took to load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from treadle.model.deployment import QueueConfig
from treadle.rules.placement import Capacity, place

IDLE_SECONDS = 1.0
TURN_SECONDS = 10.0
TURN_LOADS = 3.0
EPSILON = 1e-9


class Wish(msgspec.Struct, frozen=True):
    """A deployment that wants `more` containers. `pressing`: something would run in them at once.

    `served` is the number of the last start that it got: of equal shares the one that has waited for longer comes
    first.
    """

    deployment_id: str
    config: QueueConfig
    more: int
    pressing: bool = True
    served: int = 0


class Holding(msgspec.Struct, frozen=True):
    """A live container. What is not loaded yet has worked for None and is left alone."""

    container_id: str
    deployment_id: str
    agent_id: str
    config: QueueConfig
    gpus: tuple[str, ...] = ()
    leaving: bool = False  # it stops already: its room comes
    kept: bool = False  # one of those that nobody may take (`min_containers`)
    idle: float | None = None  # seconds without a task
    worked: float | None = None  # seconds since it was loaded
    loading: float = 0.0  # seconds that loading took


class Start(msgspec.Struct, frozen=True):
    deployment_id: str
    agent_id: str
    gpus: tuple[str, ...]


class GiveWay(msgspec.Struct, frozen=True):
    """This container stops (after its tasks, unless it is idle) for the sake of a deployment."""

    container_id: str
    idle: bool
    to: str


class Wait(msgspec.Struct, frozen=True):
    """Why a deployment gets no more now. `coming`: room is being made for it."""

    reason: str
    never: bool = False
    coming: bool = False


class Plan(msgspec.Struct, frozen=True):
    starts: list[Start]
    stops: list[GiveWay]
    waits: dict[str, Wait]


def plan(wishes: Iterable[Wish], agents: Iterable[Capacity], holdings: Iterable[Holding]) -> Plan:
    """What to start and what to stop now. `agents` tell what their machines have; what is used is added up here."""
    ground = _Ground(list(agents), list(holdings))
    made = Plan([], [], {})
    open_ = {wish.deployment_id: (wish, wish.more) for wish in wishes if wish.more > 0}
    while open_:
        wish, left = min(open_.values(), key=lambda pair: (ground.share(pair[0].deployment_id), pair[0].served))
        granted = _start(wish, ground, made) or _make_room(wish, ground, made)
        if granted and left > 1:
            open_[wish.deployment_id] = wish, left - 1
        else:
            del open_[wish.deployment_id]
    return made


def _start(wish: Wish, ground: _Ground, made: Plan) -> bool:
    found = place(wish.config, ground.now())
    if not found.agent_id:
        made.waits.setdefault(wish.deployment_id, Wait(found.reason, found.never))
        return False
    ground.take(wish, found.agent_id, found.gpus)
    made.starts.append(Start(wish.deployment_id, found.agent_id, found.gpus))
    return True


def _make_room(wish: Wish, ground: _Ground, made: Plan) -> bool:
    """Keep a place that is coming, or have one made; whoever has a greater share must not take it meanwhile."""
    wait = made.waits[wish.deployment_id]
    if wait.never or not wish.pressing:
        return False
    rooms = [room for agent_id in ground.machines if (room := ground.room(wish, agent_id)) is not None]
    if not rooms:
        return False
    room = min(rooms, key=lambda room: (sum(not _is_idle(h) for h in room.gone), len(room.gone), room.agent_id))
    for holding in room.gone:
        ground.leave(holding)
        made.stops.append(GiveWay(holding.container_id, _is_idle(holding), wish.deployment_id))
    ground.keep(wish, room)
    made.waits[wish.deployment_id] = Wait(wait.reason, coming=True)
    return True


def _is_idle(holding: Holding) -> bool:
    return holding.idle is not None and holding.idle >= IDLE_SECONDS


def _had_its_turn(holding: Holding) -> bool:
    return holding.worked is not None and holding.worked >= max(TURN_SECONDS, TURN_LOADS * holding.loading)


class _Room(msgspec.Struct, frozen=True):
    """A place on a machine once these containers, and those that leave already, are gone."""

    agent_id: str
    gpus: tuple[str, ...]
    gone: list[Holding]


class _Machine:
    """What is used of a machine: by containers, by those started in this look, and kept for those who wait."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.memory = 0
        self.leaving_memory = 0
        self.gpus: set[str] = set()
        self.leaving_gpus: set[str] = set()
        self.kept_gpus: set[str] = set()

    def now(self) -> Capacity:
        used = frozenset(self.gpus | self.kept_gpus)
        return msgspec.structs.replace(self.capacity, used_memory=self.memory, used_gpus=used)

    def without(self, gone: Sequence[Holding]) -> Capacity:
        """As it will be once these and all that leave are gone."""
        free = self.leaving_memory + sum(holding.config.memory for holding in gone)
        gpus = self.leaving_gpus.union(*(holding.gpus for holding in gone))
        used = frozenset((self.gpus - gpus) | self.kept_gpus)
        return msgspec.structs.replace(self.capacity, used_memory=self.memory - free, used_gpus=used)


class _Ground:
    """Who holds what, as the plan goes on."""

    def __init__(self, agents: Sequence[Capacity], holdings: Sequence[Holding]) -> None:
        self.machines = {agent.agent_id: _Machine(agent) for agent in agents}
        self._memory = max(sum(agent.memory for agent in agents), 1)
        self._gpus = max(sum(len(agent.gpus) for agent in agents), 1)
        self._staying: dict[str, Holding] = {}
        self._shares: dict[str, float] = {}
        for holding in holdings:
            if holding.agent_id in self.machines:
                self._add(holding)

    def _add(self, holding: Holding) -> None:
        machine = self.machines[holding.agent_id]
        machine.memory += holding.config.memory
        machine.gpus.update(holding.gpus)
        self._staying[holding.container_id] = holding
        self._count(holding.deployment_id, holding.config, 1)
        if holding.leaving:
            self.leave(holding)

    def _count(self, deployment_id: str, config: QueueConfig, number: int) -> None:
        self._shares[deployment_id] = self.share(deployment_id) + number * self._weight(config)

    def _weight(self, config: QueueConfig) -> float:
        return max(config.memory / self._memory, config.gpu_count / self._gpus)

    def share(self, deployment_id: str) -> float:
        return self._shares.get(deployment_id, 0.0)

    def now(self) -> Iterator[Capacity]:
        return (machine.now() for machine in self.machines.values())

    def take(self, wish: Wish, agent_id: str, gpus: tuple[str, ...]) -> None:
        machine = self.machines[agent_id]
        machine.memory += wish.config.memory
        machine.gpus.update(gpus)
        self._count(wish.deployment_id, wish.config, 1)

    def keep(self, wish: Wish, room: _Room) -> None:
        machine = self.machines[room.agent_id]
        machine.memory += wish.config.memory
        machine.kept_gpus.update(room.gpus)
        self._count(wish.deployment_id, wish.config, 1)

    def leave(self, holding: Holding) -> None:
        machine = self.machines[holding.agent_id]
        machine.leaving_memory += holding.config.memory
        machine.leaving_gpus.update(holding.gpus)
        del self._staying[holding.container_id]
        self._count(holding.deployment_id, holding.config, -1)

    def room(self, wish: Wish, agent_id: str) -> _Room | None:
        """How this machine could take one more container of the wish: with as few gone as that needs."""
        machine = self.machines[agent_id]
        gone: list[Holding] = []
        candidates = self._candidates(wish, agent_id)
        while not (found := place(wish.config, [machine.without(gone)])).agent_id:
            following = None if found.never else next(candidates, None)
            if following is None:
                return None
            gone.append(following)
        for holding in list(gone):
            fewer = [other for other in gone if other is not holding]
            if (without := place(wish.config, [machine.without(fewer)])).agent_id:
                gone, found = fewer, without
        return _Room(agent_id, found.gpus, gone)

    def _candidates(self, wish: Wish, agent_id: str) -> Iterator[Holding]:
        """Who may be asked to go, the dearest last."""
        others = [
            holding
            for holding in self._staying.values()
            if holding.agent_id == agent_id and holding.deployment_id != wish.deployment_id and not holding.kept
        ]
        yield from sorted((h for h in others if _is_idle(h)), key=lambda h: -(h.idle or 0.0))
        busy = [h for h in others if not _is_idle(h) and h.worked is not None]
        busy.sort(key=lambda h: (-self.share(h.deployment_id), -(h.worked or 0.0)))
        richer = list(self._richer(wish, busy))
        yield from richer
        if self.share(wish.deployment_id) < EPSILON:
            yield from (h for h in busy if _had_its_turn(h) and h not in richer)

    def _richer(self, wish: Wish, busy: Sequence[Holding]) -> Iterator[Holding]:
        """Those whose deployment is left with no smaller a share than the wish's would be."""
        needed = self.share(wish.deployment_id) + self._weight(wish.config)
        shares = dict(self._shares)
        for holding in busy:
            left = shares[holding.deployment_id] - self._weight(holding.config)
            if left >= needed - EPSILON:
                shares[holding.deployment_id] = left
                yield holding
