"""Archives from elsewhere: only plain files, only below their folder, only so many and so large."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

import pytest

from treadle.agent.sources import Sources, unpack
from treadle.model.errors import InvalidInput, TooLarge, TreadleError


def packed(*members: tuple[str, bytes, int]) -> bytes:
    """A zip of members with their Unix modes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return file.getvalue()


PLAIN = stat.S_IFREG | 0o644
GOOD = packed(("app.py", b"x = 1\n", PLAIN), ("bin/run.sh", b"#!/bin/sh\n", stat.S_IFREG | 0o755))


class Server:
    """Gives one archive whatever is asked for, and counts."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.id = hashlib.sha256(data).hexdigest()
        self.fetched = 0

    def fetch(self, source_id: str, file: BinaryIO) -> None:
        self.fetched += 1
        file.write(self.data)


def test_a_source_is_fetched_once_and_unpacked_with_its_modes(tmp_path: Path) -> None:
    server = Server(GOOD)
    sources = Sources(tmp_path, server.fetch)
    folder = sources.ensure(server.id)
    assert sources.ensure(server.id) == folder == tmp_path / server.id
    assert server.fetched == 1
    assert (folder / "app.py").read_text() == "x = 1\n"
    assert os.access(folder / "bin" / "run.sh", os.X_OK)
    assert not os.access(folder / "app.py", os.X_OK)


def test_an_archive_that_is_not_the_one_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="arrived with the digest"):
        Sources(tmp_path, Server(GOOD).fetch).ensure("0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source_id", ["../../etc", "", "A" * 64, "0" * 63])
def test_an_id_that_is_not_a_digest_is_refused_before_anything_is_fetched(tmp_path: Path, source_id: str) -> None:
    server = Server(GOOD)
    with pytest.raises(InvalidInput, match="is not the id of a source"):
        Sources(tmp_path, server.fetch).ensure(source_id)
    assert server.fetched == 0


@pytest.mark.parametrize(
    ("member", "what"),
    [
        (("/etc/cron.d/x", b"", PLAIN), "leads outside"),
        (("../x", b"", PLAIN), "leads outside"),
        (("a/../../x", b"", PLAIN), "leads outside"),
        (("a\\..\\x", b"", PLAIN), "leads outside"),
        (("link", b"/etc/passwd", stat.S_IFLNK | 0o777), "is a link or a device"),
        (("pipe", b"", stat.S_IFIFO | 0o644), "is a link or a device"),
    ],
)
def test_a_member_with_no_business_there_is_refused_and_nothing_is_kept(
    tmp_path: Path, member: tuple[str, bytes, int], what: str
) -> None:
    server = Server(packed(("app.py", b"", PLAIN), member))
    root = tmp_path / "sources"
    with pytest.raises(InvalidInput, match=what):
        Sources(root, server.fetch).ensure(server.id)
    assert list(root.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["sources"]


def test_what_is_not_a_zip_is_refused(tmp_path: Path) -> None:
    server = Server(b"hello")
    with pytest.raises(InvalidInput, match="not a readable zip"):
        Sources(tmp_path, server.fetch).ensure(server.id)


def test_a_bomb_is_refused_by_what_it_holds_not_by_what_it_says(tmp_path: Path) -> None:
    bomb = packed(("zeros", bytes(3_000_000), PLAIN))
    with pytest.raises(TooLarge, match="more than 1000000 bytes"):
        unpack(io.BytesIO(bomb), tmp_path, max_bytes=1_000_000)


def test_too_many_files_are_refused_with_the_limit(tmp_path: Path) -> None:
    many = packed(*((f"f{number}", b"", PLAIN) for number in range(11)))
    with pytest.raises(TooLarge, match="more than 10 files and folders"):
        unpack(io.BytesIO(many), tmp_path, max_files=10)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = packed(("a", b"1", PLAIN), ("a", b"2", PLAIN))
    with pytest.raises(TreadleError, match="twice"):
        unpack(io.BytesIO(twice), tmp_path)


def test_leftovers_of_a_killed_agent_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".new-abc").mkdir()
    Sources(tmp_path, Server(GOOD).fetch)
    assert list(tmp_path.iterdir()) == []
