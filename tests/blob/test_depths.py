"""Folders that a task has filled are walked through and removed, however deep, and nothing outside of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blob.deep import DEEP, deepen
from treadle.depths import remove, walk


def open_files() -> int:
    return len(names(Path("/proc/self/fd")))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_what_is_deeper_than_any_path_is_walked_through(tmp_path: Path) -> None:
    """With as few folders open as in a flat one, each folder after what is in it."""
    deepen(tmp_path / "a")
    root, before = os.open(tmp_path, os.O_RDONLY), open_files()
    try:
        found = [(one.name, one.is_folder, open_files() - before) for one in walk(root)]
    finally:
        os.close(root)
    assert [(name, is_folder) for name, is_folder, _ in found] == [("file", False), *[("ddd", True)] * DEEP, ("a", True)]
    assert max(opened for _, _, opened in found) <= 2
    remove(tmp_path / "a")


def test_what_is_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    """And what is beside it stays."""
    deepen(tmp_path / "a")
    (tmp_path / "b").touch()
    before = open_files()
    remove(tmp_path / "a")
    assert names(tmp_path) == ["b"]
    assert open_files() == before


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    """Neither those in a folder nor one in its place."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "link").symlink_to(kept)
    (tmp_path / "a" / "file").symlink_to(kept / "file")
    (tmp_path / "link").symlink_to(kept)
    for name in ("a", "link", "nothing"):
        remove(tmp_path / name)
    assert names(tmp_path) == ["kept"] and names(kept) == ["file"]


def test_folders_closed_by_their_owner_are_removed(tmp_path: Path) -> None:
    """Whether they may be listed, entered or written into: the rights of what is in a folder are its writer's choice."""
    for name, mode in (("read", 0o500), ("list", 0o400), ("none", 0o000)):
        (tmp_path / "a" / name / "below").mkdir(parents=True)
        (tmp_path / "a" / name / "below" / "file").touch()
        (tmp_path / "a" / name / "below").chmod(mode)
        (tmp_path / "a" / name).chmod(mode)
    (tmp_path / "a").chmod(0o000)
    remove(tmp_path / "a")
    assert names(tmp_path) == []


def test_what_cannot_be_removed_keeps_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is told when all else is gone."""
    for name in ("a/1/x", "a/2/kept", "a/3/x"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    unlink = os.unlink

    def refusing(name: str, *, dir_fd: int | None = None) -> None:
        if name == "kept":
            raise PermissionError(1, "Operation not permitted", name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refusing)
    with pytest.raises(PermissionError, match="kept"):
        remove(tmp_path / "a")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["a", "a/2", "a/2/kept"]


def test_a_folder_that_is_moved_meanwhile_is_not_followed(tmp_path: Path) -> None:
    """The walk goes back by the names it came by, never to where the folder is now."""
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    for name in ("a/b/file", "a/file"):
        (tmp_path / "root" / name).touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    root = os.open(tmp_path / "root", os.O_RDONLY)
    seen = []
    try:
        for found in walk(root):
            seen.append((found.name, Path(f"/proc/self/fd/{found.folder}").readlink()))
            if len(seen) == 2:  # in root/a/b
                (tmp_path / "root" / "a" / "b").rename(outside / "b")
    finally:
        os.close(root)
    a = tmp_path / "root" / "a"
    assert [place for name, place in seen if name == "b"] == [a]
    assert not [place for _, place in seen if place == outside]
