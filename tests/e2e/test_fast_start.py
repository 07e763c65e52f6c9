"""Containers of a real server come from a zygote, and users never notice."""

from __future__ import annotations

import psutil
import pytest
from place import Place, until

pytestmark = pytest.mark.e2e

ANCESTORS = """
    import os
    from pathlib import Path
    from treadle import task_queue

    @task_queue(keep_warm_seconds=0)
    def handler():
        pid, lines = os.getpid(), []
        for _ in range(4):
            lines.append(Path(f"/proc/{pid}/cmdline").read_text().replace(chr(0), " ").strip())
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return lines
"""
OWN_MODULE = """
    import secrets
    from treadle import task_queue

    @task_queue(keep_warm_seconds=0)
    def handler():
        return secrets.WORD
"""
SLOW = """
    import time
    from treadle import task_queue

    @task_queue(keep_warm_seconds=0, retries=0)
    def handler():
        time.sleep(1.5)
        return "done"
"""


def _zygotes(place: Place) -> list[psutil.Process]:
    return [process for process in place.processes() if process.cmdline()[-1] == "treadle.runner.zygote"]


def test_the_first_container_after_a_deploy_is_forked(place: Place) -> None:
    """The deploy has started the zygote: child, template and runner descend from it."""
    place.deploy(ANCESTORS, name="ancestors")
    lines = place.ended(place.submit("ancestors"))["result"]
    assert lines[0] == lines[1] == lines[2]
    assert " -P -m treadle.runner " in lines[0]
    assert lines[3].endswith(" -P -m treadle.runner.zygote")


def test_a_module_of_the_users_wins_over_what_the_zygote_has_loaded(place: Place) -> None:
    """`secrets` of the standard library is in the zygote's memory; the source has one of its own."""
    place.app("WORD = 'mine'", "secrets.py")
    place.deploy(OWN_MODULE, name="own_module")
    task = place.ended(place.submit("own_module"))
    (place.code / "secrets.py").unlink()
    assert task["result"] == "mine", task


def test_a_killed_zygote_costs_no_attempt_and_the_next_container_has_a_fresh_one(place: Place) -> None:
    """`kill -9` of the zygote while a task runs: it completes, and the next cold start works."""
    place.deploy(SLOW, name="slow")
    task_id = place.submit("slow")
    place.running(task_id)
    (zygote,) = _zygotes(place)
    zygote.kill()
    task = place.ended(task_id)
    assert (task["result"], len(task["attempts"])) == ("done", 1)
    until(lambda: not any("treadle.runner" in " ".join(p.cmdline()) for p in place.processes()), what="no container")
    assert place.ended(place.submit("slow"))["result"] == "done"
    assert [fresh.pid for fresh in _zygotes(place)] != [zygote.pid]
