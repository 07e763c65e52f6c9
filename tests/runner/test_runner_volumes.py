"""Where the volumes of a shut-off runner are mounted, and where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.model.container import Isolation
from treadle.model.wire import LoadFailed, Mount

from .boxes import Box, needs, sandbox
from .running import Runner

pytestmark = pytest.mark.process

NAMESPACES = Isolation.NAMESPACES


@needs(NAMESPACES)
def test_a_volume_is_not_mounted_over_a_link_that_a_container_has_laid(
    runner: Runner, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The folder for it would be made outside, with the rights of the agent."""
    volume, outside = tmp_path_factory.mktemp("volume"), tmp_path_factory.mktemp("outside")
    (volume / "link").symlink_to(outside)
    mounts = [Mount(str(volume), "/near"), Mount(str(tmp_path_factory.mktemp("other")), f"{volume}/link/made")]
    runner.launch("def handler(): return 1", sandbox=sandbox(tmp_path, NAMESPACES, mounts=mounts))
    assert "leads over a link" in runner.server.accept().next(LoadFailed).reason
    assert list(outside.iterdir()) == []


@needs(NAMESPACES)
def test_a_volume_is_mounted_where_nothing_is_and_gives_no_rights(
    runner: Runner, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The folders on the way are made; what lies in it has no owner's rights to give."""
    volume = tmp_path_factory.mktemp("volume")
    box = Box(runner, tmp_path, NAMESPACES, mounts=[Mount(str(volume), "/data/deep/er")])
    box.run("Path('/data/deep/er/file').write_text('x')")
    assert (volume / "file").read_text() == "x"
    (line,) = box.run("return [line for line in open('/proc/self/mountinfo') if line.split()[4] == '/data/deep/er']")
    assert {"nosuid", "nodev"} <= set(line.split()[5].split(","))
