"""Finished tasks are forgotten after `retention` days."""

from __future__ import annotations

import pytest
from place import Place, until

pytestmark = pytest.mark.e2e


def test_finished_tasks_and_their_outputs_are_forgotten(own_place: Place) -> None:
    """With `retention = 0` in config.toml a finished task is soon unknown, and its output's bytes are gone."""
    own_place.data.mkdir()
    (own_place.data / "config.toml").write_text("retention = 0\n")
    own_place.up()
    own_place.deploy(
        """
        from pathlib import Path
        from treadle import Output, task_queue

        @task_queue()
        def handler():
            Path("word.txt").write_text("word")
            Output(path="word.txt").save()
        """
    )
    task_id = own_place.submit()
    until(lambda: own_place.request("GET", f"/v2/task/{task_id}/").status_code == 404, 40, "forgetting")
    assert [path for path in (own_place.data / "blob" / "outputs").rglob("*") if path.is_file()] == []
    assert own_place.stop() == 0
