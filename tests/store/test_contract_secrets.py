"""What every store must do with secrets."""

from __future__ import annotations

import msgspec

from treadle.model.secret import Secret
from treadle.store.base import Reader, Store

from .making import NOW

KEY = Secret(1, "KEY", b"\x01\x00\xff sealed", NOW, NOW)


def put(store: Store, *secrets: Secret) -> None:
    with store.transaction():
        for secret in secrets:
            store.put_secret(secret)


def test_a_secret_is_read_as_it_was_put(store: Store, reader: Reader) -> None:
    """Byte for byte, under its workspace and name alone."""
    put(store, KEY)
    assert reader.secret(1, "KEY") == KEY
    assert reader.secret(2, "KEY") is None
    assert reader.secret(1, "key") is None


def test_putting_again_replaces(store: Store, reader: Reader) -> None:
    """The row of this workspace and name, and no other."""
    changed = msgspec.structs.replace(KEY, sealed=b"new", updated_at=NOW + 1)
    other = msgspec.structs.replace(KEY, workspace_id=2)
    put(store, KEY, other, changed)
    assert (reader.secret(1, "KEY"), reader.secret(2, "KEY")) == (changed, other)


def test_secrets_are_listed_by_name(store: Store, reader: Reader) -> None:
    """Those of one workspace."""
    names = ["B", "A", "C"]
    put(store, *(msgspec.structs.replace(KEY, name=name) for name in names), msgspec.structs.replace(KEY, workspace_id=2))
    assert [secret.name for secret in reader.secrets(1)] == ["A", "B", "C"]


def test_a_deleted_secret_is_gone(store: Store, reader: Reader) -> None:
    """Others stay; deleting what is not there does nothing."""
    put(store, KEY, msgspec.structs.replace(KEY, name="B"))
    with store.transaction():
        store.delete_secret(1, "KEY")
        store.delete_secret(1, "KEY")
    assert [secret.name for secret in reader.secrets(1)] == ["B"]
