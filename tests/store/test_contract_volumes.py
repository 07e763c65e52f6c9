"""What every store must do with volumes."""

from __future__ import annotations

import msgspec
import pytest

from treadle.model.errors import Conflict
from treadle.model.volume import Volume
from treadle.store.base import Reader, Store

from .making import NOW

ONE = Volume(1, "weights", NOW)


def insert(store: Store, *volumes: Volume) -> None:
    with store.transaction():
        for volume in volumes:
            store.insert_volume(volume)


def test_a_volume_is_read_as_it_was_inserted(store: Store, reader: Reader) -> None:
    """Under its workspace and name alone, once."""
    insert(store, ONE)
    assert reader.volume(1, "weights") == ONE
    assert reader.volume(2, "weights") is None
    with pytest.raises(Conflict):
        insert(store, ONE)


def test_volumes_are_listed_by_name(store: Store, reader: Reader) -> None:
    """Those of one workspace."""
    insert(store, *(msgspec.structs.replace(ONE, name=name) for name in "bac"), msgspec.structs.replace(ONE, workspace_id=2))
    assert [volume.name for volume in reader.volumes(1)] == ["a", "b", "c"]


def test_a_deleted_volume_is_gone(store: Store, reader: Reader) -> None:
    """Others stay; deleting what is not there does nothing."""
    insert(store, ONE, msgspec.structs.replace(ONE, workspace_id=2))
    with store.transaction():
        store.delete_volume(1, "weights")
        store.delete_volume(1, "weights")
    assert (reader.volume(1, "weights"), reader.volumes(2)) == (None, [Volume(2, "weights", NOW)])
