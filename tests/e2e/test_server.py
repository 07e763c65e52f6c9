"""`treadle up` and `treadle down`: where a server listens, what it leaves for the CLI, and how it ends."""

from __future__ import annotations

import json
import signal
import stat
import time
import tomllib
from pathlib import Path

import pytest
from place import Place, free_port, is_alive, process_of, until

pytestmark = pytest.mark.e2e

BLOCKING = """
    import subprocess, time
    from pathlib import Path
    from treadle import task_queue

    @task_queue(retries=1)
    def handler(folder):
        folder = Path(folder)
        own = subprocess.Popen(["sleep", "600"])
        (folder / "started").write_text(str(own.pid))
        while not (folder / "go").exists():
            time.sleep(0.01)
        own.kill()
        own.wait()
        return "finished"
"""


def running_task(place: Place, folder: Path) -> str:
    """A task that runs until there is a file `go` in the folder."""
    place.deploy(BLOCKING)
    task_id = place.submit(folder=str(folder))
    place.running(task_id)
    until(lambda: (p := folder / "started").exists() and p.read_text(), what="the handler's first line")
    return task_id


def test_the_first_start_is_ready_soon_and_says_where(own_place: Place) -> None:
    """On an empty data folder a server answers `GET /health` with ok, and its first line is its URL and folder."""
    start = time.monotonic()
    own_place.up()
    health = own_place.request("GET", "/health", token="")
    print(f"ready after {time.monotonic() - start:.2f} s (promised: under 2 s on a free machine)")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert health.json()["pid"] == own_place.process.pid  # type: ignore[union-attr]
    said = until(lambda: [line for line in own_place.log.read_text().splitlines() if own_place.url in line])
    assert str(own_place.data) in said[0]


def test_the_first_start_writes_credentials_that_only_the_user_may_read(place: Place) -> None:
    """The admin token has 64 characters or more and lies with URL and workspace in a file of mode 0600."""
    path = place.data / "credentials.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    credentials = tomllib.loads(path.read_text())
    assert (credentials["url"], credentials["workspace"]) == (place.url, "default")
    assert len(credentials["token"]) >= 64
    assert place.request("GET", "/v2/workspace", token=credentials["token"]).json()["name"] == "default"


def test_the_first_start_makes_a_webhook_signing_key(place: Place) -> None:
    """`treadle webhook key` prints one line, the key, which begins with sk_."""
    key = place.cli("webhook", "key").stdout
    assert key.startswith("sk_") and key.count("\n") == 1 and len(key) > 20
    assert json.loads(place.cli("webhook", "key", "--json").stdout) == {"signing_key": key.strip()}


def test_tokens_are_not_stored_in_the_clear(place: Place) -> None:
    """No file but the credentials holds the token."""
    token = place.token.encode()
    holding = [path.name for path in place.data.rglob("*") if path.is_file() and token in path.read_bytes()]
    assert holding == ["credentials.toml"]


def test_a_second_server_on_the_same_data_is_refused(place: Place) -> None:
    """It says that another one uses the folder and what to do, and the first one is not disturbed."""
    second = place.cli("up", "--port", "0")
    assert second.returncode != 0 and second.stdout == ""
    assert second.stderr.count("\n") == 1 and f"Another server uses {place.data}" in second.stderr
    assert place.request("GET", "/health").status_code == 200
    assert json.loads((place.data / "server.json").read_text())["url"] == place.url


def test_a_port_in_use_is_refused(place: Place, tmp_path: Path) -> None:
    """It names the address and the reason, and leaves nothing running."""
    refused = place.cli("up", "--port", str(place.port), "--data", str(tmp_path / "data"))
    assert refused.returncode != 0 and refused.stderr.count("\n") == 1
    assert f"port {place.port}: Address already in use" in refused.stderr
    assert not (tmp_path / "data" / "server.json").exists()


def test_url_and_token_come_from_the_environment(place: Place, tmp_path: Path) -> None:
    """With TREADLE_URL and TREADLE_TOKEN the CLI reaches a server whose data folder it does not have."""
    elsewhere = {"TREADLE_DATA": str(tmp_path), "TREADLE_URL": place.url, "TREADLE_TOKEN": place.token}
    assert place.cli("webhook", "key", env=elsewhere).stdout == place.cli("webhook", "key").stdout


def test_the_configuration_file_says_where_to_listen_and_what_is_allowed(own_place: Place) -> None:
    """`port` and `max_body` of config.toml count when no flag says otherwise; the CLI finds the server too."""
    port = free_port()
    own_place.data.mkdir()
    (own_place.data / "config.toml").write_text(f"port = {port}\nmax_body = 1000\n")
    own_place.up(listen=False)
    assert own_place.url == f"http://127.0.0.1:{port}"
    assert own_place.cli("task", "list", "--json").stdout.strip() == "[]"
    own_place.deploy("from treadle import task_queue\n\n@task_queue()\ndef handler(): pass\n")
    refused = own_place.request("POST", "/taskqueue/q", content=b'{"x": "' + b"y" * 1000 + b'"}')
    assert refused.status_code == 413 and "1000 bytes" in refused.json()["error"]


def test_a_wrong_setting_is_told_with_its_file_and_what_is_allowed(own_place: Place) -> None:
    """A server with a wrong config.toml does not start."""
    own_place.data.mkdir()
    (own_place.data / "config.toml").write_text('port = "http"\n')
    refused = own_place.cli("up")
    assert refused.returncode != 0 and refused.stderr.count("\n") == 1
    for part in ("config.toml", "port='http'", "0 to 65535"):
        assert part in refused.stderr


def test_sigterm_lets_a_running_task_finish(own_place: Place, tmp_path: Path) -> None:
    """A stopping server takes no new task, waits for the running one, ends with 0 and leaves no process."""
    task_id = running_task(own_place.up(), tmp_path)
    assert own_place.process is not None
    own_place.process.send_signal(signal.SIGTERM)
    until(lambda: own_place.request("GET", "/health").status_code == 503, what="draining")
    refused = own_place.request("POST", "/taskqueue/q", json={})
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    (tmp_path / "go").touch()
    assert own_place.process.wait(20) == 0, own_place.log.read_text()
    assert own_place.processes() == []
    own_place.up()
    task = own_place.task(task_id)
    assert (task["status"], task["result"], len(task["attempts"])) == ("COMPLETE", "finished", 1)


def test_a_task_longer_than_the_grace_leaves_no_process_and_is_not_lost(own_place: Place, tmp_path: Path) -> None:
    """After the grace the task is killed with all it started; the next server runs it again."""
    place = own_place.up("--grace", "0.5")
    task_id = running_task(place, tmp_path)
    own = process_of(place.task(task_id)["container_id"], int((tmp_path / "started").read_text()))
    assert own is not None
    start = time.monotonic()
    assert own_place.stop() == 0, own_place.log.read_text()
    print(f"stopped after {time.monotonic() - start:.2f} s with a grace of 0.5 s")
    assert own_place.processes() == [] and not is_alive(own.pid)
    (tmp_path / "go").touch()
    task = own_place.up().ended(task_id)
    assert (task["status"], len(task["attempts"])) == ("COMPLETE", 2)


def test_a_second_ctrl_c_ends_the_grace(own_place: Place, tmp_path: Path) -> None:
    """Ctrl-C waits for running tasks as SIGTERM does; a second one does not wait any longer."""
    running_task(own_place.up("--grace", "600"), tmp_path)
    assert own_place.process is not None
    own_place.process.send_signal(signal.SIGINT)
    until(lambda: own_place.request("GET", "/health").status_code == 503, what="draining")
    own_place.process.send_signal(signal.SIGINT)
    assert own_place.process.wait(20) == 0, own_place.log.read_text()
    assert own_place.processes() == []


def test_a_detached_server_runs_until_down(own_place: Place) -> None:
    """`up --detach` comes back when the server is ready and says where it is; `down` ends it and says so."""
    up = own_place.cli("up", "--detach", "--port", "0")
    assert up.returncode == 0, up.stderr
    server = json.loads((own_place.data / "server.json").read_text())
    assert server["url"] in up.stdout and f"pid {server['pid']}" in up.stdout and "treadle down" in up.stdout
    assert own_place.request("GET", f"{server['url']}/health").status_code == 200
    again = own_place.cli("up", "--detach", "--port", "0")
    assert again.returncode == 0 and "already" in again.stdout and server["url"] in again.stdout
    down = own_place.cli("down")
    assert (down.returncode, down.stdout) == (0, f"Stopped the server (pid {server['pid']}).\n")
    assert not is_alive(server["pid"]) and own_place.processes() == []
    nothing = own_place.cli("down")
    assert nothing.returncode != 0 and "No server is running" in nothing.stderr and nothing.stderr.count("\n") == 1
