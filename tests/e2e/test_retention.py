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


def test_the_oldest_logs_go_when_all_take_too_much(own_place: Place) -> None:
    """With `max_logs = 1` (MiB) in config.toml the first of four tasks that print 600 kB each soon has no log."""
    own_place.data.mkdir()
    (own_place.data / "config.toml").write_text("max_logs = 1\n")
    own_place.up()
    own_place.deploy(
        """
        from treadle import task_queue

        @task_queue()
        def handler(n):
            for _ in range(600):
                print(n, "x" * 1000)
        """
    )
    tasks = [own_place.submit(n=n) for n in range(4)]
    for task_id in tasks:
        assert own_place.ended(task_id)["status"] == "COMPLETE"

    def lines(task_id: str) -> int:
        return len(own_place.request("GET", f"/v2/task/{task_id}/logs", params={"limit": 10_000}).json()["data"])

    until(lambda: not lines(tasks[0]), what="the end of the first log")
    assert lines(tasks[3]) > 0
    assert own_place.stop() == 0
