"""What to do about the difference between the containers wanted and those known: a pure decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from treadle.model.wire import ContainerSpec


class State(StrEnum):
    """Where a container that this agent knows is."""

    STARTING = "starting"  # its image, source or process is being prepared
    RUNNING = "running"  # started here or adopted
    STOPPING = "stopping"  # being killed
    EXITED = "exited"  # over, and reported; remembered for as long as it is wanted


class Known(msgspec.Struct):
    """A container that this agent knows, the devices it has until it has exited, and whose tasks run in it."""

    state: State
    gpus: tuple[str, ...] = ()
    deployment_id: str = ""


class Start(msgspec.Struct, frozen=True):
    spec: ContainerSpec


class ReportLost(msgspec.Struct, frozen=True):
    """It is wanted and ran once (or its token is gone), but there is nothing of it here: never start it again."""

    container_id: str


class Kill(msgspec.Struct, frozen=True):
    container_id: str


class Forget(msgspec.Struct, frozen=True):
    container_id: str


Action = Start | ReportLost | Kill | Forget


def reconcile(wanted: Iterable[ContainerSpec], known: Mapping[str, Known]) -> list[Action]:
    """The actions that make the known containers those that are wanted; none where they are already.

    `wanted` is the whole list, whatever was said before. Adopted containers are known like those started here. A
    container is not started while another that lives has a GPU of it, or while one of its deployment lives that is
    not wanted: that one's tasks were given up and wait, and none may run twice at once. It is to be asked again when
    one has exited.
    """
    specs = {spec.container_id: spec for spec in wanted}
    taken = {uuid for one in known.values() if one.state is not State.EXITED for uuid in one.gpus}
    given_up = {one.deployment_id for key, one in known.items() if key not in specs and one.state is not State.EXITED}
    actions: list[Action] = []
    for container_id, one in known.items():
        if container_id in specs or one.state is State.STOPPING:
            continue
        actions.append(Forget(container_id) if one.state is State.EXITED else Kill(container_id))
    for container_id, spec in specs.items():
        if container_id in known:
            continue
        if spec.started or not spec.token:
            actions.append(ReportLost(container_id))
        elif spec.deployment_id not in given_up and taken.isdisjoint(spec.gpus):
            taken.update(spec.gpus)
            actions.append(Start(spec))
    return actions
