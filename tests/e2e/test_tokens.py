"""Tokens over the command line: made for a role, used, and cut off with what they began."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from place import TREADLE, Place

pytestmark = pytest.mark.e2e

APP = """
    import pathlib, time
    from treadle import task_queue

    @task_queue()
    def handler(go):
        print("begun", flush=True)
        while not pathlib.Path(go).exists():
            time.sleep(0.01)
        print("told to nobody", flush=True)
"""


def test_a_token_is_made_used_and_revoked(place: Place, tmp_path: Path) -> None:
    """It is printed alone, so that a script can keep it, and once; the role is held; what follows a log is cut off."""
    go = tmp_path / "go"
    place.deploy(APP)
    task_id = place.submit(go=str(go))
    place.running(task_id)
    made = place.cli("token", "create", "--role", "read", "--name", "reader")
    token = made.stdout.strip()
    assert (len(token) >= 64, token in made.stderr, token in place.cli("token", "list").stdout) == (True, False, False)
    [row] = [one for one in json.loads(place.cli("token", "list", "--json").stdout) if one["name"] == "reader"]
    mine = {"TREADLE_TOKEN": token, "TREADLE_URL": place.url}
    assert place.cli("task", "show", task_id, env=mine).returncode == 0
    refused = place.cli("task", "cancel", task_id, env=mine)
    assert (refused.returncode, "It takes 'submit'" in refused.stderr) == (1, True)
    following = [*TREADLE, "task", "logs", "--follow", task_id]
    with subprocess.Popen(
        following, env=place.environ | mine, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None and follower.stderr is not None
        assert follower.stdout.readline() == "begun\n"
        assert "revoked" in place.cli("token", "revoke", row["id"]).stdout
        Path(go).touch()
        assert follower.wait(30) == 1
        assert (follower.stdout.read(), "token was revoked" in follower.stderr.read()) == ("", True)
    assert place.ended(task_id)["status"] == "COMPLETE"
    late = place.cli("task", "show", task_id, env=mine)
    assert (late.returncode, "token was revoked" in late.stderr) == (1, True)
    assert "ASGI" not in place.log.read_text()
