"""A folder that containers write into: whatever they put there, nobody is led out of it."""

from __future__ import annotations

import os
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from treadle.blob import tree as trees
from treadle.blob.tree import Tree
from treadle.model.errors import Conflict, InvalidInput, NotFound, TooLarge
from treadle.model.ids import iso

SECRET = b"not for you"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "volume"


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Tree:
    """An empty one, with a file and a folder outside that no path may reach."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(SECRET)
    return Tree(root, tmp_path / "incoming")


def put(tree: Tree, path: str, data: bytes = b"data") -> None:
    upload = tree.start(path)
    upload.write(data)
    upload.commit()


def read(tree: Tree, path: str) -> bytes:
    file, size = tree.open(path)
    with file:
        data = file.read()
    assert len(data) == size
    return data


def listed(tree: Tree, path: str = "", *, deep: bool = False) -> list[tuple[str, str, int]]:
    return [(entry.path, entry.kind, entry.size) for entry in tree.entries(path, deep=deep)]


# what it is for


def test_a_file_is_read_as_it_was_put(tree: Tree) -> None:
    """At its path, whose folders are made, and again when it is put anew."""
    put(tree, "a/b/c.bin", b"\0\xff" * 1000)
    assert read(tree, "a/b/c.bin") == b"\0\xff" * 1000
    put(tree, "a/b/c.bin", b"")
    assert read(tree, "/a//./b/c.bin") == b""


def test_an_upload_is_seen_when_it_is_whole(tree: Tree, root: Path, tmp_path: Path) -> None:
    """Not before, and never if it is given up; nothing is left of it."""
    upload = tree.start("a.bin")
    upload.write(b"half")
    assert listed(tree) == []
    upload.abort()
    upload.abort()
    assert listed(tree) == []
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_folder_is_listed_by_path(tree: Tree) -> None:
    """One folder, or all below; a file alone."""
    for path in ("b", "a/y", "a/x/z"):
        put(tree, path)
    assert listed(tree) == [("a", "folder", 0), ("b", "file", 4)]
    assert listed(tree, "a") == [("a/x", "folder", 0), ("a/y", "file", 4)]
    everything = [("a", "folder", 0), ("a/x", "folder", 0), ("a/x/z", "file", 4), ("a/y", "file", 4), ("b", "file", 4)]
    assert listed(tree, deep=True) == everything
    assert listed(tree, "a/y") == [("a/y", "file", 4)]
    assert tree.usage() == (3, 12)


def test_a_name_that_is_no_text_is_shown_all_the_same(tree: Tree, root: Path) -> None:
    """With marks in place of what is not UTF-8."""
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.bin")).touch()
    assert listed(tree) == [("\ufffd.bin", "file", 0)]


def test_a_list_has_an_end(tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many files, or folders in folders without end, are told instead of held in memory."""
    monkeypatch.setattr(trees, "MAX_ENTRIES", 3)
    for name in "1234":
        put(tree, name)
    with pytest.raises(TooLarge, match="more than 3 files"):
        tree.entries("")
    monkeypatch.undo()
    (root / Path(*["d"] * 120)).mkdir(parents=True)
    with pytest.raises(TooLarge):
        tree.entries("", deep=True)


def test_removing(tree: Tree) -> None:
    """A file, an empty folder, and only if that is wanted a folder with all in it."""
    put(tree, "a/b")
    with pytest.raises(Conflict, match="not empty"):
        tree.remove("a")
    tree.remove("a/b")
    tree.remove("a")
    put(tree, "a/b/c")
    tree.remove("a", deep=True)
    assert listed(tree) == []
    with pytest.raises(NotFound):
        tree.remove("a")


def test_moving(tree: Tree, tmp_path: Path) -> None:
    """To a path whose folders are made, over a file that is there, and into another tree."""
    put(tree, "a", b"one")
    tree.move("a", tree, "x/y")
    put(tree, "z", b"two")
    tree.move("x/y", tree, "z")
    assert (read(tree, "z"), listed(tree, "x")) == (b"one", [])
    other = Tree(tmp_path / "other", tmp_path / "incoming")
    tree.move("x", other, "moved")
    assert listed(other) == [("moved", "folder", 0)]


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("a", "a/b", "into itself"),
        ("f", "a", "place of a folder"),
        ("a", "f", "over a file"),
        ("a", "full", "not empty"),
        ("f", "f/x", "over a file"),
    ],
)
def test_a_move_that_cannot_be_is_told(tree: Tree, source: str, target: str, said: str) -> None:
    """And changes nothing."""
    for path in ("a/x", "f", "full/x"):
        put(tree, path)
    before = listed(tree, deep=True)
    with pytest.raises(Conflict, match=said):
        tree.move(source, tree, target)
    assert listed(tree, deep=True) == before


# where it ends


@pytest.mark.parametrize("path", ["../outside/file", "a/../../outside/file", "..", "a/..", "a\0b", "x" * 5000, "\ud800"])
def test_a_path_of_another_form_is_refused(tree: Tree, path: str) -> None:
    """By everything that takes one."""
    put(tree, "a")
    for use in (tree.look, tree.entries, tree.open, tree.start, tree.remove):
        with pytest.raises(InvalidInput):
            use(path)  # type: ignore[operator]
    for source, target in ((path, "b"), ("a", path)):
        with pytest.raises(InvalidInput):
            tree.move(source, tree, target)


@pytest.mark.parametrize("path", ["", "/", "."])
def test_the_folder_itself_is_no_file(tree: Tree, path: str) -> None:
    """It can be looked at, and not removed, replaced or moved."""
    put(tree, "a")
    assert tree.look(path).kind == "folder"
    for use in (tree.open, tree.start, tree.remove):
        with pytest.raises(InvalidInput):
            use(path)  # type: ignore[operator]


def test_no_link_is_followed(tree: Tree, root: Path, tmp_path: Path) -> None:
    """Neither one at the end of a path nor one on its way, wherever it leads; what it leads to is as it was."""
    outside = tmp_path / "outside"
    (root / "file").symlink_to(outside / "file")
    (root / "folder").symlink_to(outside)
    (root / "inside").symlink_to(".")
    assert [entry.kind for entry in tree.entries("", deep=True)] == ["link", "link", "link"]
    for path in ("file", "folder/file", "inside/file"):
        with pytest.raises(Conflict, match="over a file or a link"):
            tree.open(path)
    for path in ("folder/new", "inside/new"):
        with pytest.raises(Conflict):
            put(tree, path)
    with pytest.raises(Conflict):
        tree.remove("folder/file", deep=True)
    put(tree, "a")
    with pytest.raises(Conflict):
        tree.move("a", tree, "folder/a")
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"file": SECRET}


def test_a_link_itself_can_be_replaced_moved_and_removed(tree: Tree, root: Path, tmp_path: Path) -> None:
    """What it leads to stays."""
    for name in ("a", "b", "c"):
        (root / name).symlink_to(tmp_path / "outside")
    put(tree, "a")
    tree.move("b", tree, "moved")
    tree.remove("c", deep=True)
    assert listed(tree) == [("a", "file", 4), ("moved", "link", 0)]
    assert (tmp_path / "outside" / "file").read_bytes() == SECRET


def test_a_folder_with_links_is_removed_without_what_they_lead_to(tree: Tree, root: Path, tmp_path: Path) -> None:
    """Recursively, too."""
    (root / "a").mkdir()
    (root / "a" / "link").symlink_to(tmp_path / "outside")
    tree.remove("a", deep=True)
    assert (tmp_path / "outside" / "file").read_bytes() == SECRET


def test_a_pipe_is_no_file(tree: Tree, root: Path) -> None:
    """Nobody waits for what will never be written into it."""
    os.mkfifo(root / "pipe")
    with pytest.raises(Conflict, match="is not a file"):
        tree.open("pipe")
    assert listed(tree) == [("pipe", "other", 0)]


@pytest.mark.parametrize("path", ["file/x", "x" * 300])
def test_a_path_that_cannot_be_is_told(tree: Tree, path: str) -> None:
    """Below a file, or with a name too long for the file system."""
    put(tree, "file")
    with pytest.raises((Conflict, InvalidInput)):
        put(tree, path)
    with pytest.raises((Conflict, InvalidInput)):
        tree.look(path)


@pytest.mark.parametrize("when", [2**40, -(2**40), 253_402_300_799, 0])
def test_a_time_of_any_year_can_be_told(when: int) -> None:
    """Whoever writes a file sets its time, on some file systems beyond all years."""
    status = os.stat_result((stat.S_IFREG, 0, 0, 1, 0, 0, 5, when, when, when))
    told = datetime.fromisoformat(iso(trees._entry("a", status).modified))
    assert 1000 <= told.astimezone(timezone(timedelta(hours=14))).year <= 9999
