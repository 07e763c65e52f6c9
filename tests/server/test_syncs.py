"""The bytes that a row names are on the disk before the row is written."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from store.syncs import Order, recorded

from .inside import Inside
from .test_output_urls import Saver

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="file handles have names in Linux's /proc")


def note_rows(server: Inside, order: Order) -> None:
    """Note each table that a row is inserted into; its commit comes after that."""
    server.store._connection.set_update_hook(lambda _kind, _base, table, _row: order.note("row", Path(table)))


def folders_up_to(root: Path, target: Path) -> list[Path]:
    return [root / folder for folder in target.relative_to(root).parents]


def test_an_output_is_on_disk_before_its_row(server: Inside, tmp_path: Path) -> None:
    """Bytes, name and folders, each in its turn: no power cut leaves a row without what it names."""
    server.deploy()
    saver = Saver(server)
    with recorded() as order:
        note_rows(server, order)
        saved = saver.save("a.txt", b"x" * 10)
    assert saved.status_code == 201
    root = tmp_path / "blob"
    target = root / "outputs" / saver.task_id / saved.json()["id"]
    assert order.is_on_disk_before(target, 10, folders_up_to(root, target), ("row", Path("output")))


def test_a_source_is_on_disk_before_its_row(server: Inside, tmp_path: Path) -> None:
    """The same of the code that tasks run."""
    content = b"PK-not-read-here"
    source_id = hashlib.sha256(content).hexdigest()
    with recorded() as order:
        note_rows(server, order)
        answer = server.request("PUT", f"/v2/sources/{source_id}", content=content)
    assert answer.status_code < 300, answer.text
    root = tmp_path / "blob"
    target = root / "sources" / f"{source_id}.zip"
    assert order.is_on_disk_before(target, len(content), folders_up_to(root, target), ("row", Path("source")))
