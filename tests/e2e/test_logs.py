"""Logs, end to end: read while a task runs and after it, by HTTP, by curl and by the command line; a flood; retention."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import notes
import psutil
import pytest
from place import Place, until

pytestmark = pytest.mark.e2e
MIB = 1024 * 1024


def log(place: Place, task_id: str, **query: Any) -> list[dict[str, Any]]:
    answer = place.request("GET", f"/v2/task/{task_id}/logs", params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def texts(lines: list[dict[str, Any]], stream: str = "") -> list[str]:
    return [line["text"] for line in lines if stream in ("", line["stream"])]


@contextmanager
def following(command: list[str], place: Place) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=place.environ)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_curl_sees_lines_as_they_are_printed(place: Place, tmp_path: Path) -> None:
    """`curl -N` on the stream of events: a line while the task runs, the last one, the end, and curl is done."""
    place.share_notes()
    place.deploy(
        """
        from notes import gate
        from treadle import task_queue

        @task_queue
        def handler(folder):
            print("before the gate")
            gate(folder)
            print("behind the gate")
        """,
        name="curl",
    )
    task_id = place.submit("curl", folder=str(tmp_path))
    curl = ["curl", "-sN", "-H", f"Authorization: Bearer {place.token}", "-H", "Accept: text/event-stream"]
    with following([*curl, f"{place.url}/v2/task/{task_id}/logs"], place) as process:
        assert process.stdout is not None
        seen = []
        while not seen or "before the gate" not in seen[-1]:
            seen.append(process.stdout.readline())
        assert place.task(task_id)["status"] == "RUNNING"
        notes.open_gate(tmp_path)
        rest = process.stdout.read()
        assert process.wait(10) == 0
    blocks = ("".join(seen) + rest).strip().split("\n\n")
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    assert [event["event"] for event in events] == ["line", "line", "end"]
    assert [json.loads(event["data"]).get("text") for event in events] == ["before the gate", "behind the gate", None]


def test_the_command_follows_a_task_through_its_attempts(place: Place, tmp_path: Path) -> None:
    """Every line of each attempt, which ends with its traceback; then the command returns."""
    place.deploy(
        """
        import os
        from treadle import TaskPolicy, task_queue

        @task_queue(task_policy=TaskPolicy(max_retries=1, retry_delay=0.1))
        def handler():
            print("attempt", os.environ["TASK_ATTEMPT"])
            raise ValueError("no luck")
        """,
        name="attempts",
    )
    task_id = place.submit("attempts")
    done = place.cli("task", "logs", "--follow", task_id)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    first, second = lines[: lines.index("=> attempt 2")], lines[lines.index("=> attempt 2") + 1 :]
    for number, part in ((1, first), (2, second)):
        assert part[0] == f"attempt {number}"
        assert part[1] == "Traceback (most recent call last):"
        assert part[-1] == "ValueError: no luck"
    assert place.cli("task", "logs", task_id).stdout == done.stdout
    listed = json.loads(place.cli("task", "logs", "--json", task_id).stdout)
    assert [line["attempt"] for line in listed] == [1] * len(first) + [2] * len(second)
    stamped = place.cli("task", "logs", "--timestamps", task_id).stdout.splitlines()
    assert stamped[0][:2] == "20" and stamped[0].endswith("  stdout  attempt 1")


def test_order_and_characters_survive(place: Place) -> None:
    """5000 lines of two streams, each in its order; progress bars, binary garbage, characters that writes have cut."""
    place.deploy(
        """
        import os, sys
        from treadle import task_queue

        @task_queue
        def handler():
            for n in range(2500):
                print("out", n)
                print("err", n, file=sys.stderr)
            for n in range(101):
                sys.stderr.write(f"\\r{n}%")
            sys.stderr.write("\\n")
            for byte in "Grüße, 世界 𝄞\\n".encode():
                os.write(1, bytes([byte]))
            os.write(1, b"\\xff\\x00\\x80garbage\\n")
        """,
        name="order",
    )
    task_id = place.submit("order")
    assert place.ended(task_id)["status"] == "COMPLETE"
    lines = log(place, task_id, limit=10_000)
    out, err = texts(lines, "stdout"), texts(lines, "stderr")
    assert out == [*(f"out {n}" for n in range(2500)), "Grüße, 世界 𝄞", "\N{REPLACEMENT CHARACTER}\0\N{REPLACEMENT CHARACTER}garbage"]
    assert [line for line in err if line.startswith("err")] == [f"err {n}" for n in range(2500)]
    assert err[-1] == "100%"


def test_pages_of_a_log_make_up_the_whole(place: Place) -> None:
    """Each line once, whatever the size of the page."""
    place.deploy("from treadle import task_queue\n@task_queue\ndef handler():\n    for n in range(1000): print(n)", name="pages")
    task_id = place.submit("pages")
    place.ended(task_id)
    found, cursor = [], ""
    while True:
        page = place.request("GET", f"/v2/task/{task_id}/logs", params={"limit": 77, "cursor": cursor}).json()
        found += texts(page["data"])
        cursor = page["next"]
        if not cursor:
            break
    assert found == [str(n) for n in range(1000)]


def test_what_on_start_prints_is_in_both_logs(place: Place) -> None:
    """The container's, and that of the task that it was started for; a second task has its own lines only."""
    place.deploy(
        """
        from treadle import task_queue

        print("importing")

        def start():
            print("loading weights")

        @task_queue(on_start=start, keep_warm_seconds=120)
        def handler(n):
            print("task", n)
        """,
        name="starts",
    )
    first = place.submit("starts", n=1)
    container_id = place.ended(first)["container_id"]
    second = place.submit("starts", n=2)
    place.ended(second)
    assert texts(log(place, first)) == ["importing", "loading weights", "task 1"]
    assert texts(log(place, second)) == ["task 2"]
    shown = place.cli("container", "logs", container_id)
    assert shown.stdout.splitlines() == ["importing", "loading weights", "task 1", "task 2"]
    listed = json.loads(place.cli("container", "list", "--json").stdout)
    assert [(view["status"], view["deployment"]) for view in listed if view["id"] == container_id] == [("RUNNING", "starts v1")]
    assert container_id in place.cli("container", "list").stdout
    stopped = place.cli("container", "stop", container_id, "--grace", "5")
    assert (stopped.returncode, stopped.stdout) == (0, f"Container {container_id} is stopping.\n")
    until(lambda: place.request("GET", f"/v2/containers/{container_id}").json()["status"] == "STOPPED")
    assert place.request("GET", f"/v2/containers/{container_id}/logs").json()["next"] == ""
    assert place.cli("container", "logs", "--follow", container_id).returncode == 0


def test_why_a_file_cannot_be_imported_is_in_the_log_of_the_waiting_task(place: Place) -> None:
    """The deployment was fine here, but not in the container: the task waits, and its log says what happens."""
    place.deploy(
        """
        from treadle import env, task_queue

        if env.is_remote():
            print("importing what is not there")
            import no_such_package

        @task_queue
        def handler(): pass
        """,
        name="broken",
    )
    task_id = place.submit("broken")
    lines = until(lambda: (found := texts(log(place, task_id))) and found[-1].startswith("ModuleNotFoundError") and found)
    assert lines[:2] == ["importing what is not there", "Traceback (most recent call last):"]
    assert lines[-1] == "ModuleNotFoundError: No module named 'no_such_package'"
    assert place.task(task_id)["status"] == "PENDING"
    place.cancel(task_id)


FLOOD = """
    import os
    from treadle import QueueDepthAutoscaler, task_queue

    @task_queue(workers=1, retries=0)
    def handler():
        block = b"".join(b"%07d a line of a flood that nobody will ever read\\n" % n for n in range(1000))
        for _ in range(100 * 1024 * 1024 // len(block)):
            os.write(1, block)
        print("the last line")

    @task_queue
    def quick(): pass
"""


def test_a_hundred_megabytes_harm_nobody(own_place: Place) -> None:
    """Server and runner keep their size, tasks of another queue are answered, the database stays small."""
    place = own_place.up()
    place.deploy(FLOOD, "handler", "flood")
    place.deploy(FLOOD, "quick", "quick")
    place.ended(place.submit("quick"))
    server = psutil.Process(place.process.pid if place.process else 0)
    before, size = server.memory_info().rss, database(place)
    flood = place.submit("flood")
    running = place.running(flood)
    runner = next(p for p in place.processes() if running["container_id"] in " ".join(p.cmdline()))
    latencies, server_most, runner_most = [], 0, 0
    while place.task(flood)["status"] == "RUNNING":
        began = time.monotonic()
        assert place.ended(place.submit("quick"))["status"] == "COMPLETE"
        latencies.append(time.monotonic() - began)
        server_most = max(server_most, server.memory_info().rss)
        if runner.is_running():
            runner_most = max(runner_most, runner.memory_info().rss)
    assert place.ended(flood)["status"] == "COMPLETE"
    lines = log(place, flood, limit=10_000)
    assert texts(lines)[-1] == "the last line"
    assert any("lines left out" in text for text in texts(lines, "treadle"))
    assert sum(map(len, texts(lines))) <= MIB
    assert server_most - before < 32 * MIB
    assert runner_most < 80 * MIB
    assert database(place) - size < 8 * MIB
    assert sorted(latencies)[len(latencies) // 2] < 0.5


def database(place: Place) -> int:
    return sum(file.stat().st_size for file in place.data.glob("treadle.db*"))


def test_logs_outlive_a_server_that_is_killed(own_place: Place, tmp_path: Path) -> None:
    """A task prints on without a server; after the next start its lines are there, and a follower has missed none."""
    place = own_place
    place.share_notes()
    place.data.mkdir(parents=True, exist_ok=True)
    place.up()
    place.deploy(
        """
        from notes import gate
        from treadle import task_queue

        @task_queue
        def handler(folder):
            print("one")
            gate(folder, "first")
            print("two")
            open(folder + "/printed", "w").close()
            gate(folder, "second")
            print("three")
        """,
    )
    task_id = place.submit(folder=str(tmp_path))
    with following([*place_command(), "task", "logs", "--follow", task_id], place) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "one\n"
        place.kill9()
        notes.open_gate(tmp_path, "first")
        until((tmp_path / "printed").exists)
        place.up()
        notes.open_gate(tmp_path, "second")
        assert process.stdout.read() == "two\nthree\n"
        assert process.wait(20) == 0
    assert texts(log(place, task_id)) == ["one", "two", "three"]
    assert place.stop() == 0


def place_command() -> list[str]:
    from place import TREADLE

    return TREADLE


def test_logs_go_with_their_task(own_place: Place) -> None:
    """When it is forgotten, nothing of what it printed is left in the database."""
    own_place.data.mkdir(parents=True)
    (own_place.data / "config.toml").write_text("retention = 0\n")
    place = own_place.up()
    place.deploy("from treadle import task_queue\n@task_queue\ndef handler(): print('to be forgotten')")
    task_id = place.submit()
    until(lambda: place.request("GET", f"/v2/task/{task_id}/").status_code == 404, 40)
    assert place.request("GET", f"/v2/task/{task_id}/logs").status_code == 404
    assert place.stop() == 0
    import apsw

    connection = apsw.Connection(str(place.data / "treadle.db"))
    assert connection.execute("SELECT COUNT(*) FROM log WHERE task_seq IS NOT NULL").fetchall() == [(0,)]
    connection.close()
