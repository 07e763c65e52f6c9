"""The difference between what is wanted and what is known, as a table."""

from __future__ import annotations

import pytest

from treadle.agent.reconcile import Action, Forget, Kill, ReportLost, Start, State, reconcile
from treadle.model.deployment import Image, ImageSpec, QueueConfig
from treadle.model.wire import ContainerSpec


def spec(container_id: str, *, token: str = "t", started: bool = False) -> ContainerSpec:
    image = Image("i", "d", ImageSpec(), "3.11.7", "")
    return ContainerSpec(container_id, "d1", token, QueueConfig(handler="app:f"), image, "s", started)


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
    assert reconcile(wanted, known) == actions
