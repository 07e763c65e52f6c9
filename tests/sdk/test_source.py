"""Packing the working directory: the same files give the same zip; ignore rules and links are respected."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.model.errors import InvalidInput, TooLarge
from treadle.sdk.source import Packed, pack


def _fill(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def _pack(root: Path, **options: object) -> tuple[Packed, dict[str, bytes]]:
    with tempfile.TemporaryFile() as file:
        packed = pack(root, file, **options)  # type: ignore[arg-type]
        with zipfile.ZipFile(file) as archive:
            return packed, {name: archive.read(name) for name in archive.namelist()}


def _names(root: Path) -> list[str]:
    return list(_pack(root)[1])


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0\\", exclude_categories=["C", "Z"]), min_size=1)
short = names.filter(lambda name: name not in (".", "..") and len(name.encode()) < 100 and not name.endswith(".pyc"))
trees = st.dictionaries(st.tuples(st.sampled_from(["", "a/", "a/b/"]), short).map("".join), st.binary(), max_size=8)
ignored = {"a", "a/b", ".git", ".venv", "__pycache__", "node_modules", ".gitignore", "pyvenv.cfg"}
trees = trees.map(
    lambda tree: {
        name: content
        for name, content in tree.items()
        if name not in ignored and name.rpartition("/")[2] not in ignored and not name.endswith("ignore")
    }
)


@given(trees)
@settings(max_examples=25)
def test_any_tree_is_packed_whole_and_the_same_each_time(tree: dict[str, bytes]) -> None:
    """Whatever the names and contents: unpacking gives the tree back, and the id depends on nothing else."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        first, content = _pack(_fill(Path(one), tree))
        second, _ = _pack(_fill(Path(two), dict(reversed(tree.items()))))
    assert content == tree
    assert first == second
    assert first.files == len(tree)
    assert first.skipped == ()


def test_times_and_modes_of_writing_do_not_count(tmp_path: Path) -> None:
    """Touching files, or another umask, does not make another source."""
    _fill(tmp_path, {"app.py": "x = 1"})
    before, _ = _pack(tmp_path)
    os.utime(tmp_path / "app.py", (1e9, 1e9))
    (tmp_path / "app.py").chmod(0o600)
    assert _pack(tmp_path)[0] == before


def test_a_change_of_content_or_name_makes_another_source(tmp_path: Path) -> None:
    """The id stands for the bytes and the names."""
    ids = {_pack(_fill(tmp_path, {"app.py": "x = 1"}))[0].id}
    ids.add(_pack(_fill(tmp_path, {"app.py": "x = 2"}))[0].id)
    (tmp_path / "app.py").rename(tmp_path / "app2.py")
    ids.add(_pack(tmp_path)[0].id)
    assert len(ids) == 3


def test_scripts_stay_executable(tmp_path: Path) -> None:
    """The right to execute is kept in the zip."""
    _fill(tmp_path, {"run.sh": "#!/bin/sh", "app.py": ""})
    (tmp_path / "run.sh").chmod(0o755)
    with tempfile.TemporaryFile() as file:
        pack(tmp_path, file)
        with zipfile.ZipFile(file) as archive:
            modes = {info.filename: stat.S_IMODE(info.external_attr >> 16) for info in archive.infolist()}
    assert modes == {"app.py": 0o644, "run.sh": 0o755}


def test_what_never_belongs_to_a_source_is_left_out(tmp_path: Path) -> None:
    """Version control, caches, packages and virtual environments of any name."""
    _fill(
        tmp_path,
        {
            "app.py": "", ".git/config": "", "__pycache__/app.pyc": "", "pkg/__pycache__/x.py": "", "old.pyc": "",
            ".venv/lib.py": "", "node_modules/x.js": "", "myenv/pyvenv.cfg": "", "myenv/lib.py": "",
        },
    )  # fmt: skip
    assert _names(tmp_path) == ["app.py"]


@pytest.mark.parametrize("file", [".treadleignore", ".beamignore", ".beta9ignore", ".gitignore"])
def test_each_ignore_file_is_respected(tmp_path: Path, file: str) -> None:
    """Rules may stand in any of the four files."""
    _fill(tmp_path, {file: "# data\ndata/\n*.log\n!keep.log\n/top.txt\n", "app.py": "", "data/x": "", "a/b.log": ""})
    _fill(tmp_path, {"keep.log": "", "top.txt": "", "a/top.txt": ""})
    assert _names(tmp_path) == sorted([file, "a/top.txt", "app.py", "keep.log"])


def test_our_own_ignore_file_has_the_last_word(tmp_path: Path) -> None:
    """What git ignores can still be deployed."""
    _fill(tmp_path, {".gitignore": "models/\n", ".treadleignore": "!models/\n.*ignore\n", "models/m.bin": "m"})
    assert _names(tmp_path) == ["models/m.bin"]


patterns = st.sampled_from(
    ["a", "a/", "/a", "*.x", "!*.x", "a/*", "!a/f.x", "**/b", "b/**", "a/**/f.x", "f.?", "!f.y", "[ab]", "\\!x", "#c", ""]
)


@pytest.mark.process
@given(st.lists(patterns, max_size=4), st.lists(patterns, max_size=3))
@settings(max_examples=40)
def test_rules_mean_what_they_mean_to_git(top: list[str], nested: list[str]) -> None:
    """For any rules, in the root and in a folder, the same files are left as by git itself."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _fill(root, {f"{place}{name}": "" for place in ("", "a/", "b/", "a/b/", "c/a/") for name in ("f.x", "f.y", "g")})
        _fill(root, {".gitignore": "\n".join(top), "a/.gitignore": "\n".join(nested)})
        git = ["git", "-C", folder, "-c", "core.excludesFile=/dev/null"]
        subprocess.run([*git, "init", "-q"], check=True)
        listing = subprocess.run([*git, "ls-files", "-co", "--exclude-standard"], check=True, capture_output=True)
        assert _names(root) == sorted(listing.stdout.decode().split())


def test_a_rule_that_is_none_is_named(tmp_path: Path) -> None:
    """A line that git could not understand either is told with its folder."""
    _fill(tmp_path, {"a/.gitignore": "ok\nbroken\\\n"})
    with pytest.raises(InvalidInput, match=r"/a cannot be understood: .*broken"):
        _pack(tmp_path)


def test_the_servers_own_folder_is_left_out(tmp_path: Path) -> None:
    """A data folder inside the working directory (with its token) is never packed."""
    _fill(tmp_path, {"app.py": "", "state/credentials.toml": "token"})
    assert list(_pack(tmp_path, exclude=[tmp_path / "state"])[1]) == ["app.py"]


def test_links_inside_are_followed_and_links_outside_are_told(tmp_path: Path) -> None:
    """A link is packed as what it leads to, if that is inside; else it is left out with a warning."""
    root = _fill(tmp_path / "root", {"app.py": "x", "lib/m.py": "m"})
    _fill(tmp_path, {"secret": "s"})
    (root / "same.py").symlink_to("app.py")
    (root / "lib2").symlink_to("lib")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    (root / "gone").symlink_to("nothing")
    packed, content = _pack(root)
    assert content == {"app.py": b"x", "lib/m.py": b"m", "lib2/m.py": b"m", "same.py": b"x"}
    assert [reason.partition(":")[0] for reason in packed.skipped] == ["gone", "out", "up"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """Folders that link to each other are packed once each way."""
    _fill(tmp_path, {"a/x": "", "b/y": ""})
    (tmp_path / "a/to_b").symlink_to("../b")
    (tmp_path / "b/to_a").symlink_to("../a")
    (tmp_path / "a/self").symlink_to(".")
    assert _names(tmp_path) == ["a/to_b/y", "a/x", "b/to_a/x", "b/y"]


def test_ignored_links_are_not_told(tmp_path: Path) -> None:
    """Nobody is warned of what they left out themselves."""
    _fill(tmp_path, {".gitignore": "out\n"})
    (tmp_path / "out").symlink_to("/etc/passwd")
    assert _pack(tmp_path)[0].skipped == ()


def test_special_files_are_left_out(tmp_path: Path) -> None:
    """A pipe cannot be packed, and reading it would never end."""
    os.mkfifo(tmp_path / "pipe")
    assert _names(tmp_path) == []


def test_too_much_is_refused_with_the_limit(tmp_path: Path) -> None:
    """The error names the limit, the place and the way out."""
    _fill(tmp_path, {"a": b"x" * 600, "b": b"x" * 600})
    assert _pack(tmp_path, limit=1200)[0].files == 2
    with pytest.raises(TooLarge, match=r"more than 1\.2 kB .*passed at b.*\.treadleignore"):
        _pack(tmp_path, limit=1199)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """The error names the file and says what to do."""
    _fill(tmp_path, {"locked": ""})
    (tmp_path / "locked").chmod(0)
    with pytest.raises(InvalidInput, match="locked"):
        _pack(tmp_path)
