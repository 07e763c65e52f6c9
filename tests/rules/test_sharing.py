"""Who gets what is free, and who makes room."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.model.deployment import QueueConfig
from treadle.model.wire import Gpu
from treadle.rules.placement import Capacity
from treadle.rules.sharing import GiveWay, Holding, Plan, Wish, plan


def asks(memory: int = 100, gpus: int = 0) -> QueueConfig:
    return QueueConfig(handler="app:f", memory=memory, gpus=("T4",) if gpus else (), gpu_count=gpus)


def machine(places: int, agent_id: str = "m", gpus: int = 0) -> Capacity:
    devices = tuple(Gpu(f"{agent_id}-g{n}", "T4") for n in range(gpus))
    return Capacity(agent_id, 8000, places * 100, devices)


def held(deployment: str, count: int, *, memory: int = 100, agent_id: str = "m", **fields: Any) -> list[Holding]:
    """Containers of a deployment that have worked for a second."""
    fields = {"worked": 1.0, **fields}
    return [
        Holding(f"{deployment}{n}", deployment, agent_id, asks(memory), **fields) for n in range(count)
    ]


def wish(deployment: str, more: int = 9, *, memory: int = 100, **fields: Any) -> Wish:
    return Wish(deployment, asks(memory), more, **fields)


def started(made: Plan) -> dict[str, int]:
    return dict(Counter(start.deployment_id for start in made.starts))


def stopped(made: Plan) -> list[str]:
    return [stop.container_id for stop in made.stops]


# what is free


@pytest.mark.parametrize(
    ("places", "wants", "gets"),
    [
        (4, {"a": 9, "b": 9}, {"a": 2, "b": 2}),
        (4, {"a": 9, "b": 1}, {"a": 3, "b": 1}),
        (3, {"a": 9, "b": 9}, {"a": 2, "b": 1}),
        (9, {"a": 9, "b": 9, "c": 9}, {"a": 3, "b": 3, "c": 3}),
        (9, {"a": 2, "b": 3}, {"a": 2, "b": 3}),
        (1, {"a": 2}, {"a": 1}),
    ],
)
def test_what_is_free_is_shared_out(places: int, wants: dict[str, int], gets: dict[str, int]) -> None:
    """Evenly, and what one does not want is for the others; nobody who has nothing yet is asked to go."""
    made = plan([wish(name, more) for name, more in wants.items()], [machine(places)], [])
    assert started(made) == gets
    assert made.stops == []


def test_shares_are_of_memory_not_of_containers() -> None:
    """One that needs four times the memory gets a quarter of the containers."""
    made = plan([wish("big", memory=400), wish("small")], [machine(16)], [])
    assert started(made) == {"big": 2, "small": 8}


def test_who_has_less_comes_first() -> None:
    """What is already held counts."""
    made = plan([wish("a"), wish("b")], [machine(4)], held("a", 2))
    assert started(made) == {"b": 2}


def test_of_equal_shares_the_one_that_waits_longer_comes_first() -> None:
    """By the number of the last start that it got."""
    made = plan([wish("a", served=20), wish("b", served=10)], [machine(1)], [])
    assert started(made) == {"b": 1}


# who makes room


def test_an_idle_container_makes_room() -> None:
    """The longest idle one first, and no more than needed; `kept` ones and those idle for a moment only do not."""
    idle = [
        Holding(name, "a", "m", asks(), idle=idle, worked=99.0, kept=kept)
        for name, idle, kept in [("short", 0.5, False), ("two", 2.0, False), ("nine", 9.0, False), ("kept", 99.0, True)]
    ]
    made = plan([wish("b", 1)], [machine(4)], idle)
    assert made.stops == [GiveWay("nine", idle=True, to="b")]
    assert made.starts == []
    assert made.waits["b"].coming


def test_no_more_is_asked_for_than_what_comes_already() -> None:
    """While one leaves, and when it is gone."""
    leaving = [Holding("a0", "a", "m", asks(), leaving=True), *held("a", 4)[1:]]
    made = plan([wish("b", 1)], [machine(4)], leaving)
    assert (made.starts, made.stops, made.waits["b"].coming) == ([], [], True)


def test_whoever_has_too_much_gives_half_of_it() -> None:
    """The late one is made room for, container by container that finish their work; the greedy takes none back."""
    made = plan([wish("b"), wish("a")], [machine(4)], held("a", 4))
    assert [(stop.idle, stop.to) for stop in made.stops] == [(False, "b"), (False, "b")]
    assert made.starts == []
    assert not made.waits["a"].coming


def test_with_equal_shares_nobody_gives() -> None:
    """However much both want."""
    made = plan([wish("b"), wish("a")], [machine(4)], [*held("a", 2), *held("b", 2)])
    assert (made.starts, made.stops) == ([], [])


def test_what_comes_is_kept_for_whom_it_is_made() -> None:
    """Memory that is free but too little for the one that waits is not given to the one that made room."""
    holdings = [*held("small", 7), Holding("s7", "small", "m", asks(), leaving=True)]
    made = plan([wish("small"), wish("big", 1, memory=400)], [machine(10)], holdings)
    assert started(made) == {}
    assert len(made.stops) == 1, "two places are free, one comes, one more is needed"


def test_a_deployment_without_any_takes_its_turn() -> None:
    """On a machine with one place: not before the other one has had its own, by a multiple of what loading took."""
    for worked, loading, goes in [(9.0, 0.0, False), (10.0, 0.0, True), (29.0, 10.0, False), (30.0, 10.0, True)]:
        made = plan([wish("b")], [machine(1)], held("a", 1, worked=worked, loading=loading))
        assert (stopped(made) == ["a0"]) == goes, (worked, loading)


def test_a_loading_container_is_left_alone() -> None:
    """Whatever the shares."""
    made = plan([wish("b")], [machine(4)], held("a", 4, worked=None))
    assert made.stops == []


def test_a_wish_that_does_not_press_asks_nobody_to_go() -> None:
    """Such as one whose tasks are all delayed."""
    idle = held("a", 4, idle=60.0)
    assert plan([wish("b", pressing=False)], [machine(4)], idle).stops == []


def test_what_never_fits_asks_nobody_to_go() -> None:
    """And says so."""
    made = plan([wish("b", memory=500)], [machine(4)], held("a", 4, idle=60.0))
    assert made.stops == []
    assert made.waits["b"].never


def test_room_is_made_on_one_machine() -> None:
    """Two halves on two machines are no place; idle ones go before busy ones."""
    holdings = [
        *held("a", 2, agent_id="m"),
        *[Holding(f"i{n}", "i", "n", asks(), idle=5.0, worked=9.0) for n in range(2)],
    ]
    made = plan([wish("b", 1, memory=200)], [machine(2, "m"), machine(2, "n")], holdings)
    assert sorted(stopped(made)) == ["i0", "i1"]


def test_only_who_has_the_device_is_asked_for_it() -> None:
    """A container without a GPU stays; of those with one, as many go as needed."""
    capacity = machine(8, gpus=2)
    holdings = [
        Holding("plain", "p", "m", asks(), idle=60.0),
        Holding("one", "g", "m", asks(gpus=1), gpus=("m-g0",), idle=3.0, worked=9.0),
        Holding("two", "g", "m", asks(gpus=1), gpus=("m-g1",), idle=2.0, worked=9.0),
    ]
    made = plan([Wish("b", asks(gpus=1), 1)], [capacity], holdings)
    assert stopped(made) == ["one"]
    made = plan([Wish("b", asks(gpus=2), 1)], [capacity], holdings)
    assert sorted(stopped(made)) == ["one", "two"]


def test_a_device_is_started_with_once() -> None:
    """Starts of one look share none."""
    made = plan([Wish("a", asks(gpus=1), 3), Wish("b", asks(gpus=1), 3)], [machine(9, gpus=2)], [])
    assert sorted(start.gpus for start in made.starts) == [("m-g0",), ("m-g1",)]
    assert started(made) == {"a": 1, "b": 1}


# over time


class World:
    """Looks again and again: what was started has loaded by the next look, what gives way is gone by then."""

    def __init__(self, places: int, wants: dict[str, tuple[int, int]]) -> None:
        self.agents = [machine(places)]
        self.wants = wants  # containers wanted, memory
        self.live: list[Holding] = []
        self.number = 0
        self.served: dict[str, int] = {}
        self.had: Counter[str] = Counter()

    def counts(self) -> dict[str, int]:
        return dict(Counter(holding.deployment_id for holding in self.live))

    def look(self, seconds: float = 1.0) -> None:
        self.live = [
            Holding(h.container_id, h.deployment_id, "m", h.config, worked=(h.worked or 0.0) + seconds) for h in self.live
        ]
        wishes = [
            Wish(name, asks(memory), most - self.counts().get(name, 0), served=self.served.get(name, 0))
            for name, (most, memory) in self.wants.items()
        ]
        made = plan(wishes, self.agents, self.live)
        gone = set(stopped(made))
        self.live = [holding for holding in self.live if holding.container_id not in gone]
        for start in made.starts:
            self.number += 1
            config = asks(self.wants[start.deployment_id][1])
            self.live.append(Holding(f"c{self.number}", start.deployment_id, "m", config, worked=0.0))
            self.served[start.deployment_id] = self.number
            self.had[start.deployment_id] += 1
        assert sum(h.config.memory for h in self.live) <= self.agents[0].memory


@pytest.mark.parametrize("places", [2, 3, 4, 10, 31])
def test_the_late_one_has_its_half_after_a_few_looks_and_then_nothing_moves(places: int) -> None:
    """Neither is ever without; from then on no container changes hands."""
    world = World(places, {"greedy": (99, 100)})
    world.look()
    assert world.counts() == {"greedy": places}
    world.wants["late"] = (99, 100)
    world.look()
    world.look()
    assert world.counts() == {"greedy": places - places // 2, "late": places // 2}
    before = list(world.had.items())
    for _ in range(50):
        world.look()
    assert list(world.had.items()) == before


@pytest.mark.parametrize(("places", "deployments"), [(1, 2), (1, 3), (2, 5), (3, 4)])
def test_where_places_are_too_few_all_have_their_turns(places: int, deployments: int) -> None:
    """Each gets about as many turns as any other, and none waits for longer than all others' turns take."""
    world = World(places, {f"d{n}": (9, 100) for n in range(deployments)})
    for _ in range(400):
        world.look()
    assert len(world.had) == deployments
    assert max(world.had.values()) - min(world.had.values()) <= 2


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from([50, 100, 200, 300])), min_size=1, max_size=4),
)
def test_nobody_starves_and_nothing_is_given_out_twice(places: int, wants: list[tuple[int, int]]) -> None:
    """Whatever is wanted: whoever fits on the machine has run within a few turns; memory is never exceeded."""
    world = World(places, {f"d{n}": want for n, want in enumerate(wants)})
    for _ in range(100):
        world.look()
    fitting = {name for name, (_, memory) in world.wants.items() if memory <= places * 100}
    assert set(world.had) == fitting
