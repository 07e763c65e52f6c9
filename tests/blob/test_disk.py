"""What concerns blobs on a disk alone: that it can be full."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from store.syncs import recorded
from treadle.blob.disk import DiskBlob
from treadle.model.errors import NoSpace


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that does not fit is refused with what to do, at the write or at the commit, and leaves no blob."""
    blob = DiskBlob(tmp_path)

    def on_a_full_disk(dir: Path) -> tuple[int, str]:  # noqa: A002
        (dir / "part").touch()
        return os.open("/dev/full", os.O_WRONLY), str(dir / "part")

    monkeypatch.setattr(tempfile, "mkstemp", on_a_full_disk)
    for chunk in (b"x" * 100_000, b"x"):
        upload = blob.start("outputs/a")
        with pytest.raises(NoSpace, match="Make room"):
            upload.write(chunk)
            upload.commit()
        upload.abort()
        assert blob.size("outputs/a") is None
    assert not list((tmp_path / ".incoming").iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="file handles have names in Linux's /proc")
def test_a_blob_is_synced_then_named_then_its_folders_are_synced(tmp_path: Path) -> None:
    """When `commit` has returned, a power cut takes neither the bytes nor the name, however new the folders are."""
    root = tmp_path / "blob"
    with recorded() as order:
        upload = DiskBlob(root).start("outputs/task/one")
        upload.write(b"x" * 10)
        upload.commit()
        order.note("told")
    target = root / "outputs/task/one"
    assert order.is_on_disk_before(target, 10, [root / "outputs/task", root / "outputs", root], ("told", Path()))
    assert ("sync", tmp_path) in order.steps  # where the root has its name
