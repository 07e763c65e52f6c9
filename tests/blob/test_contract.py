"""What every blob store must do, whichever keeps the bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle.blob.base import Blob
from treadle.blob.disk import DiskBlob
from treadle.model.errors import Conflict, InvalidInput, NotFound

FACTORIES: dict[str, Callable[[Path], Blob]] = {"disk": DiskBlob}
SEGMENTS = st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True).filter(lambda segment: segment not in (".", ".."))
KEYS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join).filter(lambda key: not key.startswith(".incoming"))
BAD_KEYS = [
    "", "/", "/etc/passwd", "a//b", "a/", "..", "../a", "a/../b", "a/./b", ".", "a b", "a\n", "a\0b", "a\\b", "é",
    "~", "a:b", "%2e%2e/a", "a" * 256, "/".join(["a" * 200] * 6), ".incoming/a", ".incoming",
]  # fmt: skip
any_input = settings(suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture], max_examples=50)


@pytest.fixture(params=FACTORIES)
def blob(request: pytest.FixtureRequest, tmp_path: Path) -> Blob:
    return FACTORIES[request.param](tmp_path / "blobs")


def put(blob: Blob, key: str, *chunks: bytes) -> None:
    upload = blob.start(key)
    for chunk in chunks:
        upload.write(chunk)
    upload.commit()


def get(blob: Blob, key: str) -> bytes:
    return b"".join(blob.read(key))


@pytest.mark.parametrize("chunks", [(), (b"",), (b"x",), (b"one ", b"and ", b"two")])
def test_what_was_committed_is_read_back(blob: Blob, chunks: tuple[bytes, ...]) -> None:
    """The bytes under a key are the chunks written, in order; none is an empty file."""
    put(blob, "outputs/a/b.txt", *chunks)

    whole = b"".join(chunks)
    assert get(blob, "outputs/a/b.txt") == whole
    assert blob.size("outputs/a/b.txt") == len(whole)
    with blob.open("outputs/a/b.txt") as file:
        assert file.read() == whole


def test_what_is_below_a_key_is_walked_through(blob: Blob) -> None:
    """All that is committed there, with the time it came; nothing of what is under way or elsewhere."""
    assert list(blob.walk("outputs")) == []
    began = time.time()
    for key in ("outputs/a/b.txt", "outputs/a/c", "outputs/d", "sources/e"):
        put(blob, key, b"x")
    blob.start("outputs/f").write(b"x")
    kept = list(blob.walk("outputs"))
    assert sorted(one.key for one in kept) == ["outputs/a/b.txt", "outputs/a/c", "outputs/d"]
    assert all(began - 2 < one.since < time.time() + 2 for one in kept)


def test_an_upload_counts_its_bytes(blob: Blob) -> None:
    """`size` grows with each chunk."""
    upload = blob.start("a")
    upload.write(b"123")
    upload.write(b"45")

    assert upload.size == 5
    upload.abort()


def test_nothing_is_visible_before_commit(blob: Blob) -> None:
    """A key has its bytes when the upload is committed, and nothing before."""
    upload = blob.start("a")
    upload.write(b"half")

    assert blob.size("a") is None
    with pytest.raises(NotFound):
        blob.open("a")
    upload.commit()
    assert get(blob, "a") == b"half"


def test_an_aborted_upload_leaves_what_was_there(blob: Blob) -> None:
    """Abort drops the new bytes and keeps the old ones."""
    put(blob, "a", b"old")
    upload = blob.start("a")
    upload.write(b"new")
    upload.abort()
    upload.abort()

    assert get(blob, "a") == b"old"
    with pytest.raises(Conflict, match="already"):
        upload.commit()


def test_abort_after_commit_changes_nothing(blob: Blob) -> None:
    """A caller may abort in a `finally`."""
    upload = blob.start("a")
    upload.write(b"kept")
    upload.commit()
    upload.abort()

    assert get(blob, "a") == b"kept"


def test_an_upload_ends_once(blob: Blob) -> None:
    """A second commit of the same upload is refused."""
    upload = blob.start("a")
    upload.commit()

    with pytest.raises(Conflict, match="already"):
        upload.commit()


def test_a_key_can_be_written_again(blob: Blob) -> None:
    """The last commit wins, and a reader that is under way keeps what it opened."""
    put(blob, "a", b"first")
    with blob.open("a") as file:
        put(blob, "a", b"second")
        assert file.read() == b"first"

    assert get(blob, "a") == b"second"


def test_bytes_are_read_in_chunks(blob: Blob) -> None:
    """No chunk is larger than asked for."""
    put(blob, "a", b"0123456789")

    assert list(blob.read("a", chunk=4)) == [b"0123", b"4567", b"89"]


def test_a_missing_key_is_told_at_once(blob: Blob) -> None:
    """`open` and `read` raise NotFound when called; `size` is None; a folder of keys is no key."""
    put(blob, "folder/a", b"x")

    for key in ("missing", "folder", "folder/b", "folder/a/b"):
        assert blob.size(key) is None
        with pytest.raises(NotFound, match=key):
            blob.open(key)
        with pytest.raises(NotFound, match=key):
            blob.read(key)


def test_delete_is_idempotent(blob: Blob) -> None:
    """A deleted key is gone; deleting it again, or what never was, is no error."""
    put(blob, "folder/a", b"x")
    put(blob, "folder/b", b"y")
    for _ in range(2):
        blob.delete("folder/a")
    blob.delete("folder")
    blob.delete("folder/b/c")

    assert blob.size("folder/a") is None
    assert get(blob, "folder/b") == b"y"


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_of_another_form_is_refused(blob: Blob, key: str) -> None:
    """Every method refuses a key that could leave the store, and says what is allowed."""
    for method in (blob.start, blob.open, blob.read, blob.size, blob.delete):
        with pytest.raises(InvalidInput, match="Allowed"):
            method(key)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@any_input
@given(key=KEYS, body=st.binary(max_size=100))
def test_every_good_key_holds_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, factory: Callable[[Path], Blob], key: str, body: bytes
) -> None:
    """Whatever the key, its bytes come back until it is deleted."""
    blob = factory(tmp_path_factory.mktemp("blobs"))
    put(blob, key, body)
    assert get(blob, key) == body
    blob.delete(key)
    assert blob.size(key) is None


@any_input
@given(key=st.text(alphabet=st.sampled_from("a.-_/\\~ \n\0é"), max_size=12))
def test_no_key_leaves_the_store(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    """A key is refused or its file lies below the root; nothing else is ever written."""
    folder = tmp_path_factory.mktemp("keys")  # a new one for each key: deleted `a/b` leaves a folder, refusing `a`
    root = folder / "outer" / "blobs"
    blob = DiskBlob(root)
    try:
        put(blob, key, b"x")
    except InvalidInput:
        pass
    else:
        assert (root / key).resolve().is_relative_to(root.resolve())
        blob.delete(key)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_key_below_another_is_refused_on_disk(tmp_path: Path) -> None:
    """A file cannot be a folder too: the second key is refused and the first one kept."""
    blob = DiskBlob(tmp_path)
    put(blob, "a", b"file")
    put(blob, "b/c", b"below")

    for key in ("a/b", "b"):
        upload = blob.start(key)
        with pytest.raises(Conflict, match="below or above"):
            upload.commit()
        upload.abort()
    assert (get(blob, "a"), get(blob, "b/c")) == (b"file", b"below")
    assert list((tmp_path / ".incoming").iterdir()) == []


def test_what_a_killed_server_left_is_removed_on_disk(tmp_path: Path) -> None:
    """Half an upload does not stay after the next start; whole files do."""
    put(DiskBlob(tmp_path), "a", b"whole")
    (tmp_path / ".incoming" / "half").write_bytes(b"h")

    blob = DiskBlob(tmp_path)
    blob.sweep()

    assert list((tmp_path / ".incoming").iterdir()) == []
    assert get(blob, "a") == b"whole"
