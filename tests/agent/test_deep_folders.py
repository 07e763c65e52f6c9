"""What a task leaves in its folder keeps no container from ending, and no agent from starting."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.test_agent import world
from blob.deep import deepen
from runtime.waiting import async_test
from treadle.agent import containers
from treadle.depths import remove
from treadle.model.wire import AgentHello, Exited, Wanted

pytestmark = pytest.mark.process

DIGGER = "import os, sys\nfor _ in range(1500):\n    os.mkdir('ddd')\n    os.chdir('ddd')\nsys.exit(3)\n"


@async_test
async def test_the_end_of_a_container_with_a_deep_folder_is_told(tmp_path: Path) -> None:
    """And the folder is gone then."""
    async with world(tmp_path) as w:
        spec = w.container(DIGGER)
        await w.server.send(Wanted([spec]))
        assert (await w.server.next(Exited)).reason == "ended with exit code 3"
        assert not (tmp_path / "agent" / "containers" / spec.container_id).exists()


@async_test
async def test_a_deep_folder_is_cleared_away_by_the_next_agent(tmp_path: Path) -> None:
    """Which starts, with it or with its temporary files."""
    async with world(tmp_path) as w:
        await w.server.next(AgentHello)
        await w.stop_agent()
        left = [tmp_path / "agent" / "containers" / "taskqueue-deep-12345678", tmp_path / "agent" / "tmp" / "12345678"]
        for folder in left:
            deepen(folder)
        w.start_agent()
        await w.server.next(AgentHello, 2)
        assert not any(folder.exists() for folder in left)


@async_test
async def test_a_folder_that_cannot_be_removed_keeps_no_other_nor_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told, and left to the next start."""

    def refusing(folder: Path) -> None:
        if folder.name == "one":
            raise PermissionError(1, "Operation not permitted", "file")
        remove(folder)

    monkeypatch.setattr(containers, "remove", refusing)
    place = tmp_path / "agent" / "containers"
    for name in ("one", "two"):
        (place / name).mkdir(parents=True)
    async with world(tmp_path) as w:
        await w.server.next(AgentHello)
        assert [path.name for path in place.iterdir()] == ["one"]
        assert "folder of a container could not be removed  container=one" in capsys.readouterr().out
