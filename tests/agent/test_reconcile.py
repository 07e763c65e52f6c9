"""The difference between what is wanted and what is known, as a table."""

from __future__ import annotations

import pytest

from treadle.agent.reconcile import Action, Forget, Kill, Known, ReportLost, Start, State, reconcile
from treadle.model.deployment import Image, ImageSpec, QueueConfig
from treadle.model.wire import ContainerSpec


def spec(container_id: str, *, token: str = "t", started: bool = False, gpus: tuple[str, ...] = ()) -> ContainerSpec:
    image = Image("i", "d", ImageSpec(), "3.11.7", "")
    return ContainerSpec(container_id, "d1", token, QueueConfig(handler="app:f"), image, "s", started, gpus=gpus)


A = spec("a")
TABLE: list[tuple[str, list[ContainerSpec], dict[str, State], list[Action]]] = [
    ("nothing is wanted and nothing known", [], {}, []),
    ("a new container is started", [A], {}, [Start(A)]),
    ("one that has started before is lost", [spec("a", started=True)], {}, [ReportLost("a")]),
    ("one without its token cannot be started", [spec("a", token="")], {}, [ReportLost("a")]),
    ("one being started goes on", [A], {"a": State.STARTING}, []),
    ("a running one goes on", [A], {"a": State.RUNNING}, []),
    ("a running one whose token is gone goes on", [spec("a", token="", started=True)], {"a": State.RUNNING}, []),
    ("one wanted again while it is killed is still killed", [A], {"a": State.STOPPING}, []),
    ("one that is over is never started again", [A], {"a": State.EXITED}, []),
    ("a starting one not wanted is killed", [], {"a": State.STARTING}, [Kill("a")]),
    ("a running one not wanted is killed", [], {"a": State.RUNNING}, [Kill("a")]),
    ("one is not killed twice", [], {"a": State.STOPPING}, []),
    ("one that is over and not wanted is forgotten", [], {"a": State.EXITED}, [Forget("a")]),
    (
        "each is decided for itself",
        [A, spec("b", started=True), spec("c")],
        {"c": State.RUNNING, "d": State.RUNNING, "e": State.EXITED},
        [Kill("d"), Forget("e"), Start(A), ReportLost("b")],
    ),
]


@pytest.mark.parametrize(("wanted", "known", "actions"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_actions(wanted: list[ContainerSpec], known: dict[str, State], actions: list[Action]) -> None:
    """The row's name says it."""
    assert reconcile(wanted, {key: Known(state) for key, state in known.items()}) == actions


@pytest.mark.parametrize(
    ("state", "held", "starts"),
    [
        (State.RUNNING, ("g1",), False),
        (State.STARTING, ("g2", "g1"), False),
        (State.STOPPING, ("g1",), False),
        (State.EXITED, ("g1",), True),
        (State.RUNNING, ("g3",), True),
    ],
)
def test_a_device_goes_on_only_when_nothing_that_has_it_lives(
    state: State, held: tuple[str, ...], starts: bool
) -> None:
    """A container that is to get a GPU waits for the end of whoever has it, wanted or not."""
    new = spec("new", gpus=("g1", "g4"))
    actions = reconcile([new], {"old": Known(state, held)})
    assert (Start(new) in actions) == starts


def test_two_new_containers_never_start_with_the_same_device() -> None:
    """Whatever the server says, the first of them has it."""
    one, two = spec("one", gpus=("g1",)), spec("two", gpus=("g1",))
    assert reconcile([one, two], {}) == [Start(one)]


@pytest.mark.parametrize(
    ("state", "deployment", "starts"),
    [
        (State.RUNNING, "d1", False),
        (State.STARTING, "d1", False),
        (State.STOPPING, "d1", False),
        (State.EXITED, "d1", True),
        (State.RUNNING, "d2", True),
    ],
)
def test_nothing_starts_for_a_deployment_while_what_it_has_given_up_lives(
    state: State, deployment: str, starts: bool
) -> None:
    """After a link was cut for long, the tasks of the old container wait for the new one, and the old one still runs them."""
    actions = reconcile([A], {"old": Known(state, deployment_id=deployment)})
    assert (Start(A) in actions) == starts


def test_a_container_that_is_wanted_holds_up_no_other_of_its_deployment() -> None:
    """Scaling out starts beside what runs."""
    assert reconcile([A, spec("b")], {"b": Known(State.RUNNING, deployment_id="d1")}) == [Start(A)]
