"""Archives and names that lead astray: whatever an archive holds, nothing is written outside its folder or without limit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.agent.sources import MAX_LIST, Sources, unpack
from treadle.engine.outputs import check_output_name
from treadle.model.errors import InvalidInput, TooLarge, TreadleError

from .effort import effort

PLAIN = stat.S_IFREG | 0o644
KINDS = [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFREG, 0]


def packed(*members: tuple[str, int], data: bytes = b"x") -> bytes:
    """A zip of members with their modes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return file.getvalue()


def unpacked(data: bytes, tmp_path: Path, **limits: int) -> list[str]:
    """What is in the folder after it; refusals are ours, and nothing is beside the folder."""
    place = tmp_path / "place"
    place.mkdir()
    try:
        unpack(io.BytesIO(data), place, **limits)
    finally:
        assert list(tmp_path.iterdir()) == [place]
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "//x", "a\\..\\x", "..", ".", "a/..", "C:\\x"])
@pytest.mark.parametrize("mode", [PLAIN, stat.S_IFDIR | 0o755])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    """Upwards, from the root, with the separators of another system."""
    with pytest.raises(InvalidInput):
        unpacked(packed((name, mode)), tmp_path)


@pytest.mark.parametrize("kind", KINDS[:5])
def test_a_member_that_is_no_file_is_refused(tmp_path: Path, kind: int) -> None:
    """Links, pipes, sockets and devices."""
    with pytest.raises(InvalidInput, match="link or a device"):
        unpacked(packed(("x", kind | 0o777)), tmp_path)


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"], ["x" * 256], ["a/" + "x" * 300]])
def test_names_that_no_file_system_has_together_are_refused(tmp_path: Path, names: list[str]) -> None:
    """A file that is a folder too, the same one twice, a name that is too long."""
    with pytest.raises(InvalidInput):
        unpacked(packed(*((name, PLAIN) for name in names)), tmp_path)


def test_folders_count_that_only_names_imply(tmp_path: Path) -> None:
    """A few members with long paths are many folders."""
    deep = packed(*((f"{number}/" + "d/" * 500 + "x", PLAIN) for number in range(10)))
    with pytest.raises(TooLarge, match="more than 1000 files and folders"):
        unpacked(deep, tmp_path, max_files=1000)


@pytest.mark.parametrize("zip64", [False, True])
def test_a_list_of_files_that_would_fill_the_memory_is_not_read(tmp_path: Path, zip64: bool) -> None:
    """What the end record says of its size is enough to refuse it."""
    size = MAX_LIST + 1
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 0xFFFFFFFF if zip64 else size, 0, 0)
    if zip64:
        end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, 0) + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1) + end
    with pytest.raises(TooLarge, match=str(MAX_LIST)):
        unpacked(packed(("x", PLAIN)) + end, tmp_path)


def test_what_is_encrypted_or_compressed_otherwise_is_refused(tmp_path: Path) -> None:
    """With our words, not with those of whoever reads it."""
    for offset, value in ((6, b"\x01"), (8, b"\x63")):  # general purpose flag, compression method
        data = bytearray(packed(("x", PLAIN)))
        data[offset : offset + 1] = value
        central = data.index(b"PK\x01\x02")
        data[central + offset + 2 : central + offset + 3] = value
        with pytest.raises(InvalidInput, match="not a readable zip"):
            unpacked(bytes(data), tmp_path)
        (tmp_path / "place").rmdir()


def test_a_bomb_is_stopped_at_the_limit(tmp_path: Path) -> None:
    """Whatever it says of its sizes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(5_000_000))
    with pytest.raises(TooLarge, match="1000000 bytes"):
        unpacked(data.getvalue(), tmp_path, max_bytes=1_000_000)


@effort(80)
@given(data=st.data())
def test_no_damage_makes_unpacking_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A byte here and there, a piece cut off: it is unpacked, or refused; and what is unpacked is inside."""
    names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10) | st.sampled_from(["a/b", "a", "../a", "/a"])
    members = data.draw(st.lists(st.tuples(names, st.sampled_from(KINDS)), max_size=4, unique_by=lambda member: member[0]))
    archive = bytearray(packed(*members))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(archive) - 1), st.integers(0, 255)), max_size=4)):
        archive[place] = value
    folder = tmp_path_factory.mktemp("archive")
    with contextlib.suppress(TreadleError):
        unpacked(bytes(archive[: len(archive) - data.draw(st.sampled_from([0, 0, 0, 1, 20]))]), folder, max_files=50, max_bytes=10_000)
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_nothing_is_kept_of_what_was_refused(tmp_path: Path) -> None:
    """Not even its beginning."""
    data = packed(("good", PLAIN), ("a", PLAIN), ("a/b", PLAIN))
    sources = Sources(tmp_path, lambda _, file: file.write(data) and None)
    with pytest.raises(InvalidInput):
        sources.ensure(hashlib.sha256(data).hexdigest())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", "a\\b", "a\nb", "a\0", "\x7f", "a\x85b", "a\u2028b", "photo\u202egpj.exe", "\ud800", "x" * 256, "é" * 128])
def test_an_output_has_the_name_of_a_file(name: str) -> None:
    """Of one line, without slashes, and as it looks."""
    with pytest.raises(InvalidInput, match="Output name"):
        check_output_name(name)


@effort(100)
@given(name=st.text(max_size=300))
def test_the_name_of_an_output_is_harmless_wherever_it_is_shown(name: str) -> None:
    """In a header, a log line, on a terminal, as a file below a folder."""
    try:
        check_output_name(name)
    except InvalidInput:
        return
    assert Path("/place", name).parent == Path("/place") and len(name.splitlines()) == 1
    assert len(name.encode()) <= 255
