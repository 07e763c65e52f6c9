"""`treadle image`: what is there, and removing what nothing uses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from cli.conftest import Run, said_once
from sdk.peer import Peer
from treadle.model.api import ImageView
from treadle.model.ids import iso


def view(image_id: str, **fields: object) -> ImageView:
    used = datetime.now(UTC) - timedelta(hours=3)
    made = ImageView(image_id * 32, "box", "3.11.7", ("numpy", "six"), "", 76_000_000, 20_000_000, iso(0), iso(used.timestamp()), [])
    return msgspec.structs.replace(made, **fields)


@pytest.fixture
def stored(peer: Peer) -> Peer:
    """A peer with one image that is used and one that is not."""
    many = tuple(f"package{number}" for number in range(9))
    peer.stored = [view("a", used_by=["thumbs v1", "draft app:f"]), view("b", packages=many)]
    return peer


def test_images_are_listed_with_what_uses_them(treadle: Run, stored: Peer) -> None:
    """One line each; long lists are cut."""
    done = treadle("image", "list")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "IMAGE ID      PYTHON  PACKAGES                                  SIZE   USED BY                 LAST USED",
        "aaaaaaaaaaaa  3.11.7  numpy, six                                76 MB  thumbs v1, draft app:f  3 hours ago",
        "bbbbbbbbbbbb  3.11.7  package0, package1, package2, package3,…  76 MB  -                       3 hours ago",
        "2 images, 152 MB",
    ]
    assert msgspec.json.decode(treadle("image", "list", "--json").stdout, type=list[ImageView]) == stored.stored


def test_a_dry_run_shows_and_removes_nothing(treadle: Run, stored: Peer) -> None:
    """The sizes are those that the disk would get back."""
    done = treadle("image", "prune", "--dry-run")
    assert "20 MB" in done.stdout.splitlines()[1]
    assert done.stdout.splitlines()[2:] == [
        "1 image to be removed, 20 MB freed",
        "56 MB of their files stay: uv's cache (`uv cache clean`) or other images have them",
    ]
    assert len(stored.stored) == 2


def test_where_nobody_can_be_asked_yes_is_needed(treadle: Run, stored: Peer) -> None:
    """Without it nothing is removed, and the line says how."""
    assert "1 image would be removed. Add --yes" in said_once(treadle("image", "prune"))
    assert len(stored.stored) == 2
    assert "1 image removed, 20 MB freed" in treadle("image", "prune", "--yes").stdout
    assert [one.id[0] for one in stored.stored] == ["a"]
    assert treadle("image", "prune").stdout == "Nothing to remove: every image is in use.\n"


def test_pruning_with_json_prints_one_object(treadle: Run, stored: Peer) -> None:
    """Ids whole, sizes in bytes."""
    told = json.loads(treadle("image", "prune", "--yes", "--json").stdout)
    assert ([one["id"] for one in told["removed"]], told["freed"], told["dry_run"]) == (["b" * 32], 20_000_000, False)
