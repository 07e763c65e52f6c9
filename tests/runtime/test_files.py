"""Reading and writing where a container may have put anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from treadle.runtime import files


def test_a_file_is_read_whole_and_its_end_alone(tmp_path: Path) -> None:
    """Not more bytes than asked for."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert files.read(path) == b"0123456789"
    assert (files.end_of(path, 4), files.end_of(path, 100)) == (b"6789", b"0123456789")


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "nothing", "device"])
def test_what_is_no_file_is_not_read_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    """Links lead to what the container must not see; a pipe has no end."""
    path, other = tmp_path / "it", tmp_path / "other"
    match kind:
        case "link":
            other.write_text("secret")
            path.symlink_to(other)
        case "dangling":
            path.symlink_to(other)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path = Path("/dev/zero")
    assert files.end_of(path, 10) == b""
    with pytest.raises(OSError, match=r"."):
        files.read(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """Its length is not told by who may change it meanwhile, but by what has come."""
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, files.MOST + 1)
    with pytest.raises(OSError, match="more than"):
        files.read(path)
    assert files.end_of(path, 3) == b"\0\0\0"


@pytest.mark.parametrize("at", ["file", "file.new"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_file_is_written_in_the_place_of_a_link_or_a_pipe(tmp_path: Path, at: str, kind: str) -> None:
    """And not where the link leads to."""
    elsewhere = tmp_path / "elsewhere"
    if kind == "link":
        (tmp_path / at).symlink_to(elsewhere)
    else:
        os.mkfifo(tmp_path / at)
    files.write_private(tmp_path / "file", b"text")
    assert (tmp_path / "file").read_bytes() == b"text"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
