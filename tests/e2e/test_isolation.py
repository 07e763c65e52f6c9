"""Isolation as users meet it: the level is on the record, what is demanded is kept, and the product works inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from place import Place, until

pytestmark = pytest.mark.e2e

PROBE = """
    import os, sys
    from pathlib import Path
    from treadle import task_queue

    @task_queue(keep_warm_seconds=5, retries=0)
    def handler(paths):
        seen = {}
        for path in paths:
            try:
                seen[path] = Path(path).read_bytes()[:20].decode("latin-1")
            except OSError as error:
                seen[path] = type(error).__name__
        return {"seen": seen, "pid": os.getpid(), "processes": [n for n in os.listdir("/proc") if n.isdigit()]}
"""
CLOSED = """
    import os, socket
    from pathlib import Path
    from treadle import Output, task_queue

    @task_queue(retries=0, keep_warm_seconds=5, env={"WHERE": "other"})
    def other(x):
        return x + 1

    @task_queue(retries=0, keep_warm_seconds=5, block_network=True)
    def handler(port):
        try:
            socket.create_connection(("127.0.0.1", port), 2)
            reached = True
        except OSError:
            reached = False
        Path("report.txt").write_text("saved without a network")
        output = Output(path="report.txt").save()
        return {"reached": reached, "url": output.public_url(), "exists": output.exists()}
"""
SUBMITTING = """
    import json, os
    from treadle import task_queue
    from treadle.client import Client

    @task_queue(retries=0, keep_warm_seconds=1)
    def twice(x):
        return x * 2

    @task_queue(retries=0, keep_warm_seconds=1, block_network=True)
    def handler():
        client = Client(os.environ["TREADLE_URL"], os.environ["TREADLE_TOKEN"])
        task_id = client.enqueue("twice", b'{"x": 21}')
        return json.loads(bytes(client.result(task_id, wait=30).result))
"""


def test_the_server_says_how_containers_are_isolated(shut: Place) -> None:
    """One line at the start of the agent."""
    until(lambda: "containers are isolated" in shut.log.read_text(), what="the line")
    (line,) = [line for line in shut.log.read_text().splitlines() if "containers are isolated" in line]
    assert "by=namespaces" in line and "isolation=2" in line


def test_a_container_sees_neither_the_servers_files_nor_other_processes(shut: Place) -> None:
    """Credentials, database, log, and whatever else runs here."""
    shut.deploy(PROBE, name="probe")
    paths = [str(shut.data / name) for name in ("credentials.toml", "treadle.db", "server.json", "agent/id")]
    result = shut.ended(shut.submit("probe", paths=[*paths, "/etc/hostname"]))["result"]
    assert [result["seen"][path] for path in paths] == ["FileNotFoundError"] * 4
    assert result["seen"]["/etc/hostname"] != "FileNotFoundError"
    assert len(result["processes"]) == 2 and result["pid"] <= 10


def test_the_level_is_on_the_record_of_the_container(shut: Place) -> None:
    """As the runner has entered it."""
    shut.deploy(PROBE, name="recorded")
    task = shut.ended(shut.submit("recorded", paths=[]))
    view = shut.request("GET", f"/v2/containers/{task['attempts'][0]['container_id']}").json()
    assert view["isolation"] == 2


def test_outputs_work_without_a_network(shut: Place) -> None:
    """The server's own port is out of reach, and files are saved all the same."""
    shut.deploy(CLOSED, name="closed")
    task = shut.ended(shut.submit("closed", port=shut.port))
    assert task["status"] == "COMPLETE", task
    assert (task["result"]["reached"], task["result"]["exists"]) == (False, True)
    assert shut.request("GET", task["outputs"][0]["url"], token="").text == "saved without a network"
    assert task["result"]["url"].startswith(shut.url)


def test_tasks_can_be_submitted_without_a_network(shut: Place) -> None:
    """To another queue, and waiting for its result."""
    shut.deploy(SUBMITTING, "twice", name="twice", file="submitting.py")
    shut.deploy(SUBMITTING, name="submitting", file="submitting.py")
    task = shut.ended(shut.submit("submitting"))
    assert task["result"] == 42, task


def test_more_isolation_than_there_is_keeps_tasks_waiting_and_says_why(shut: Place) -> None:
    """Never a silent downgrade."""
    shut.deploy(PROBE.replace("retries=0", "retries=0, min_isolation=3"), name="demanding")
    task_id = shut.submit("demanding", paths=[])
    why = until(lambda: (w := shut.task(task_id)["why"]).startswith("unschedulable") and w)
    assert "min_isolation=3 takes isolation level 3 (engine)" in why and "at most 2 (namespaces)" in why
    assert shut.cancel(task_id) == [task_id]


def test_an_open_agent_refuses_what_needs_a_closed_one(own_place: Place) -> None:
    """At level 0 neither a demanded level nor a blocked network can be had."""
    place = own_place.up(env={"TREADLE_ISOLATION": "process"})
    for name, option in (("level", "min_isolation=1"), ("network", "block_network=True")):
        place.deploy(PROBE.replace("retries=0", f"retries=0, {option}"), name=name)
        task_id = place.submit(name, paths=[])
        why = until(lambda task_id=task_id: (w := place.task(task_id)["why"]).startswith("unschedulable") and w)
        assert option in why and "at most 0 (process): TREADLE_ISOLATION=process" in why
        assert place.cancel(task_id) == [task_id]
    assert place.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to see every container's processes")
def test_a_closed_container_survives_the_death_of_its_server(own_place: Place) -> None:
    """kill -9 of server and agent while it works: the next one adopts it, and its result arrives."""
    own_place.up(env={"TREADLE_ISOLATION": "namespaces"})
    own_place.deploy(
        """
        import time
        from treadle import task_queue

        @task_queue(retries=0)
        def handler():
            time.sleep(4)
            return "survived"
        """
    )
    task_id = own_place.submit()
    own_place.running(task_id)
    own_place.kill9()
    own_place.up(env={"TREADLE_ISOLATION": "namespaces"})
    task = own_place.ended(task_id)
    assert (task["result"], len(task["attempts"])) == ("survived", 1), task
    assert own_place.stop() == 0
    assert own_place.processes() == []


VOLUMES = """
    from pathlib import Path
    from treadle import Volume, task_queue

    @task_queue(retries=0, keep_warm_seconds=1, volumes=[Volume("near", "./near"), Volume("far", "/far")])
    def handler(word):
        for folder in ("near", "/far"):
            Path(folder, "file").write_text(word)
        return [str(path) for folder in ("near", "/far", "/volumes/near") for path in Path(folder).iterdir()]
"""


def test_volumes_are_there_in_a_closed_container(shut: Place) -> None:
    """Below the working directory, and at an absolute path; what is written stays."""
    shut.deploy(VOLUMES, name="volumes", file="volumes.py")
    task = shut.ended(shut.submit("volumes", word="kept"))
    assert task["result"] == ["near/file", "/far/file", "/volumes/near/file"], task
    for name in ("near", "far"):
        assert [path.read_text() for path in (shut.data / "volumes").glob(f"*/{name}/file")] == ["kept"]


HUNGRY = """
    from pathlib import Path
    from treadle import task_queue

    @task_queue(retries=0, keep_warm_seconds=5, memory=64)
    def handler(where):
        if where == "little":
            return 1
        if where == "memory":
            return len(bytearray(300 * 2**20))
        with open("/dev/shm/filled", "wb") as file:
            for _ in range(300):
                file.write(bytes(2**20))
"""


def test_memory_is_held_and_told_as_ever(shut: Place) -> None:
    """The verdict names the limit; what is in the container's own /dev/shm counts, and the next task has room."""
    shut.deploy(HUNGRY, name="hungry", file="hungry.py")
    for where in ("memory", "/dev/shm"):
        task = shut.ended(shut.submit("hungry", where=where))
        assert task["attempts"][0]["failure_kind"] == "oom", task
        assert "64 MiB" in task["failure_reason"]
        assert not Path("/dev/shm/filled").exists()
        assert shut.ended(shut.submit("hungry", where="little"))["result"] == 1
