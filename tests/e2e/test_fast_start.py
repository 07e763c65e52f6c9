"""Containers of a real server come from a zygote, and users never notice."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from notes import ledger, open_gate
from place import Place, process_of, until

pytestmark = pytest.mark.e2e

ANCESTORS = """
    from notes import gate, note
    from treadle import task_queue

    @task_queue(keep_warm_seconds=0)
    def handler(folder):
        note(folder, "start")
        gate(folder)
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


def test_the_first_container_after_a_deploy_is_forked(place: Place, tmp_path: Path) -> None:
    """The deploy has started the zygote: child, template and runner descend from it."""
    place.share_notes()
    place.deploy(ANCESTORS, name="ancestors")
    task_id = place.submit("ancestors", folder=str(tmp_path))
    line = until(lambda: ledger(tmp_path))[0]
    child = process_of(line["container"], line["pid"])
    assert child is not None
    lines = [" ".join(process.cmdline()) for process in (child, *child.parents()[:3])]
    open_gate(tmp_path)
    place.ended(task_id)
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
