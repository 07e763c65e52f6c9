"""Volumes: made when first named, kept until nobody uses them, and told to agents with their folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.engine.effects import ToAgent
from treadle.engine.volumes import DropVolume, MadeVolume, NameVolume, Volumes
from treadle.model.errors import Conflict, NotFound
from treadle.model.volume import VolumeMount
from treadle.model.wire import Mount, Wanted

from .making import NOW, Desk

WEIGHTS = (VolumeMount("weights", "models"),)


def make(desk: Desk, name: str) -> MadeVolume:
    made: MadeVolume = desk.ask(desk.engine.volumes.make, NameVolume(desk.workspace.id, name))
    return made


def delete(desk: Desk, name: str, *, force: bool = False) -> None:
    desk.ask(desk.engine.volumes.delete, DropVolume(desk.workspace.id, name, force))


def names(desk: Desk) -> list[str]:
    return [volume.name for volume in desk.store.volumes(desk.workspace.id)]


def test_a_volume_is_made_once(desk: Desk) -> None:
    """By a name that nobody has; asked for again, it is the same."""
    assert make(desk, "weights").created
    desk.now = NOW + 5
    again = make(desk, "weights")
    assert (again.created, again.volume.created_at) == (False, NOW)


def test_a_deployment_makes_the_volumes_that_it_names(desk: Desk) -> None:
    """A new version and a draft find them."""
    desk.deploy("a", volumes=WEIGHTS)
    assert names(desk) == ["weights"]
    desk.deploy("a", volumes=(*WEIGHTS, VolumeMount("cache", "cache")))
    desk.deploy("", volumes=WEIGHTS)
    assert names(desk) == ["cache", "weights"]


def test_an_agent_is_told_where_a_volume_is_and_where_it_goes(desk: Desk) -> None:
    """Its folder is below the data folder, by workspace and name."""
    desk.agent()
    desk.submit(desk.deploy(volumes=WEIGHTS))
    desk.ask(desk.engine.scaler.scale)
    (spec,) = [e.message.containers[0] for e in desk.sent if isinstance(e, ToAgent) and isinstance(e.message, Wanted)]
    folder = desk.path.parent.absolute() / "volumes" / "default" / "weights"
    assert spec.mounts == [Mount(str(folder), "models")]


def test_one_in_use_is_deleted_only_by_force(desk: Desk) -> None:
    """The newest versions that mount it are named; a container that starts afterwards makes it anew, empty."""
    desk.agent()
    for name in ("a", "b"):
        deployment = desk.deploy(name, volumes=WEIGHTS)
    desk.deploy("a")
    with pytest.raises(Conflict, match="Volume 'weights' is used by b v1"):
        delete(desk, "weights")
    delete(desk, "weights", force=True)
    assert names(desk) == []
    desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    assert names(desk) == ["weights"]


def test_one_that_a_container_has_is_in_use(desk: Desk) -> None:
    """A draft's, or an older version's, as long as it lives."""
    desk.agent()
    old = desk.deploy("a", volumes=WEIGHTS)
    draft = desk.deploy("", volumes=WEIGHTS)
    containers = [desk.started(deployment)[0] for deployment in (old, draft)]
    desk.deploy("a")
    with pytest.raises(Conflict, match=r"is used by a draft of app:handler, a v1\."):
        delete(desk, "weights")
    for container_id in containers:
        desk.ask(desk.engine.fleet.gone, _gone(container_id))
    delete(desk, "weights")
    with pytest.raises(NotFound, match="Volume 'weights' does not exist"):
        delete(desk, "weights")


def _gone(container_id: str) -> object:
    from treadle.engine.fleet import Gone

    return Gone(container_id, "idle")


def test_the_files_of_a_deleted_volume_go(desk: Desk) -> None:
    """All of them, and those of no other; clearing what was never used does nothing."""
    volumes, home = desk.engine.volumes, desk.workspace
    for name in ("weights", "other"):
        upload = volumes.tree(home, name).start("a/b")
        upload.write(b"data")
        upload.commit()
    for _ in range(2):
        volumes.clear(home, "weights", volumes.doom(home, "weights"))
    assert volumes.tree(home, "weights").entries("") == []
    assert [entry.path for entry in volumes.tree(home, "other").entries("", deep=True)] == ["a", "a/b"]
    left = desk.path.parent / "volumes" / ".leaving"
    assert list(left.iterdir()) == []


def filled(desk: Desk, name: str) -> Path:
    """The folder of a volume with a file in it."""
    make(desk, name)
    upload = desk.engine.volumes.tree(desk.workspace, name).start("a/b")
    upload.write(b"data")
    upload.commit()
    return desk.path.parent / "volumes" / "default" / name


def test_a_volume_is_emptied_where_it_is_if_nothing_can_be_made_beside_it(desk: Desk) -> None:
    """As on a full disk: deleting is what makes room."""
    place = filled(desk, "weights")
    (desk.path.parent / "volumes" / ".leaving").touch()  # no folder can be made there
    volumes = desk.engine.volumes
    doomed = volumes.doom(desk.workspace, "weights")
    assert doomed is None
    delete(desk, "weights")
    volumes.clear(desk.workspace, "weights", doomed)
    assert not place.exists()


def test_a_volume_whose_server_was_killed_before_its_files_went_is_emptied_by_the_next(desk: Desk) -> None:
    """At once, so that one of its name that is made anew is empty; of others nothing goes, with a row or without."""
    place, other, foreign = (filled(desk, name) for name in ("weights", "other", "foreign"))
    for name in ("weights", "other"):
        desk.engine.volumes.doom(desk.workspace, name)
    delete(desk, "weights")
    desk.ask(lambda _now, requests: [desk.store.delete_volume(desk.workspace.id, "foreign")], None)
    again = Volumes(desk.store, desk.path.parent / "volumes")
    assert not place.exists()
    assert again.sweep() == []
    assert [path.name for path in (desk.path.parent / "volumes" / ".leaving").iterdir()] == []
    assert (other / "a" / "b").read_bytes() == (foreign / "a" / "b").read_bytes() == b"data"
