"""`make demo`: start a server, deploy a function, send it pictures, receive webhooks, fetch the thumbnails."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.request import ProxyHandler, Request, build_opener

import psutil
from PIL import Image

from examples.make_pictures import PICTURES, draw_all
from examples.receiver import Received, Receiver
from examples.screen import Screen

ROOT = Path(__file__).parents[1]
TREADLE = [sys.executable, "-m", "treadle"]
TARGET = "examples/thumbnails.py:make_thumbnails"
NAME = "thumbnails"
PATIENCE = 60.0  # seconds without any webhook
_open = build_opener(ProxyHandler({})).open  # everything is on this machine: no proxy between


class Failed(Exception):
    """Something did not go as it must; the message says what."""


class Server(NamedTuple):
    """A running server: its data folder, where it is, and its admin token."""

    data: Path
    url: str
    token: str

    def cli(self, *args: str) -> str:
        """Run a `treadle` command and return what it prints."""
        return _run([*args], self.data).stdout.strip()

    def call(self, method: str, url: str, body: dict[str, Any] | None = None) -> Any:
        """An HTTP request with our token; JSON in, JSON out."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        with _open(Request(url, data, headers, method=method), timeout=30) as answer:  # noqa: S310 - our own http URL
            return json.load(answer)


class Done(NamedTuple):
    """A task that has ended, with the thumbnails that were downloaded."""

    task: dict[str, Any]
    pictures: list[Image.Image]


def main() -> int:
    screen = Screen()
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="treadle-demo-") as name:
        folder = Path(name)
        try:
            with _server(screen, folder / "data") as server:
                done = _run_pictures(screen, server, folder / "pictures")
                _show_table(screen, done)
            _check_gone(folder)
        except Failed as error:
            screen.fail(str(error))
            return 1
        except KeyboardInterrupt:
            screen.fail("interrupted")
            return 130
        finally:
            for process in _left(folder):  # none, unless something went wrong
                process.kill()
    count = sum(len(one.pictures) for one in done)
    screen.end(f"Done: {len(done)} pictures became {count} thumbnails in {time.monotonic() - started:.1f} s.")
    screen.detail("Every webhook's signatures were checked, every thumbnail was opened, and nothing is left running.")
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _environ(data: Path) -> dict[str, str]:
    """Our own server only, whatever the user has configured."""
    return {k: v for k, v in os.environ.items() if not k.startswith("TREADLE_")} | {"TREADLE_DATA": str(data)}


def _run(args: list[str], data: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*TREADLE, *args], cwd=ROOT, env=_environ(data), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"`treadle {' '.join(args)}` ended with exit code {done.returncode}: {done.stderr.strip()}")
    return done


@contextmanager
def _server(screen: Screen, data: Path) -> Iterator[Server]:
    """A server on a free port with an empty data folder, stopped in the end."""
    screen.title("Start a server")
    screen.command("treadle up --port 0 --detach")
    with screen.waiting("starting"):
        _run(["up", "--port", "0", "--data", str(data), "--detach"], data)
    credentials = tomllib.loads((data / "credentials.toml").read_text())
    screen.detail(f"it listens at {credentials['url']} and keeps its data in {data}")
    try:
        yield Server(data, credentials["url"], credentials["token"])
    finally:
        screen.title("Stop the server")
        screen.command("treadle down")
        with screen.waiting("letting containers end"):
            screen.detail(_run(["down", "--data", str(data)], data).stdout.strip().splitlines()[-1])


def _run_pictures(screen: Screen, server: Server, folder: Path) -> list[Done]:
    invoke_url = _deploy(screen, server)
    screen.title("Draw the pictures")
    with screen.waiting("drawing"):
        pictures = draw_all(folder)
    size = sum(path.stat().st_size for path in pictures)
    screen.detail(f"{len(pictures)} files, {size / 1e6:.1f} MB: {', '.join(PICTURES)}")
    receiver = Receiver(server.cli("webhook", "key"))
    try:
        submitted = _submit(screen, server, invoke_url, pictures, receiver.url)
        _receive(screen, receiver, submitted)
    finally:
        receiver.close()
    return _fetch(screen, server, submitted)


def _deploy(screen: Screen, server: Server) -> str:
    """Deploy through the CLI, its lines shown as they come; returns the URL of the queue."""
    screen.title("Deploy the function")
    args = ["deploy", TARGET, "--name", NAME, "--json"]
    screen.command(f"treadle {' '.join(args)}")
    with subprocess.Popen(
        [*TREADLE, *args], cwd=ROOT, env=_environ(server.data),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None and process.stdout is not None
        with screen.waiting("building the image and syncing files"):
            for line in process.stderr:
                screen.detail(line.rstrip())
        answer = process.stdout.read()
    if process.returncode:
        raise Failed(f"the deployment failed with exit code {process.returncode}; the lines above say why")
    return str(json.loads(answer)["invoke_url"])


def _submit(
    screen: Screen, server: Server, invoke_url: str, pictures: list[Path], callback_url: str
) -> dict[str, str]:
    """POST each picture; returns the pictures' names by task id."""
    screen.title("Submit the pictures")
    screen.command(f"curl -X POST {invoke_url} \\")
    screen.command("  -H 'Content-Type: application/json' -H 'Authorization: Bearer …' \\", mark=" ")
    screen.command("""  -d '{"name": "…", "picture": "<base64>", "callback_url": "…"}'""", mark=" ")
    submitted = {}
    with screen.progress("submitted", len(pictures)) as step:
        for path in pictures:
            picture = base64.b64encode(path.read_bytes()).decode()
            body = {"name": path.name, "picture": picture, "callback_url": callback_url}
            submitted[server.call("POST", invoke_url, body)["task_id"]] = path.name
            step(path.name)
    return submitted


def _receive(screen: Screen, receiver: Receiver, submitted: Mapping[str, str]) -> None:
    """Wait until a genuine webhook came for each task."""
    screen.title("Receive the webhooks")
    screen.detail(f"at {receiver.url}, both signatures checked")
    missing = set(submitted)
    with screen.progress("received", len(submitted)) as step:
        while missing:
            got = receiver.next(PATIENCE)
            if got is None:
                raise Failed(f"no webhook came for {PATIENCE:g} s; still missing: {', '.join(sorted(missing))}")
            _check_webhook(got, submitted)
            if got.task_id in missing:
                missing.remove(got.task_id)
                step(f"{submitted[got.task_id]} {got.status}")


def _check_webhook(got: Received, submitted: Mapping[str, str]) -> None:
    if got.problem:
        raise Failed(f"a webhook is not genuine: {got.problem}")
    if got.task_id not in submitted:
        raise Failed(f"a webhook tells of task {got.task_id}, which was never submitted")
    if got.status != "COMPLETE":
        raise Failed(f"{submitted[got.task_id]} ended {got.status}: see `treadle task show {got.task_id}`")


def _fetch(screen: Screen, server: Server, submitted: Mapping[str, str]) -> list[Done]:
    """Get each task's record and download its outputs."""
    screen.title("Download the outputs")
    done = []
    with screen.progress("fetched", len(submitted)) as step:
        for task_id, name in submitted.items():
            task = server.call("GET", f"{server.url}/v2/task/{task_id}/")
            done.append(Done(task, [_thumbnail(task, output) for output in task["outputs"]]))
            step(f"{name} {' '.join(f'{p.width}x{p.height}' for p in done[-1].pictures)}")
    return done


def _thumbnail(task: Mapping[str, Any], output: Mapping[str, Any]) -> Image.Image:
    """Download an output by its signed URL and make sure that it is the picture that the result speaks of."""
    with _open(output["url"], timeout=30) as answer:
        data = answer.read()
    said = {one["file"]: one for one in task["result"]["thumbnails"]}[output["name"]]
    picture = Image.open(io.BytesIO(data))
    picture.load()
    if (*picture.size, len(data)) != (said["width"], said["height"], said["bytes"]):
        raise Failed(f"{output['name']} is {picture.size} in {len(data)} bytes, but its task said {said}")
    return picture


def _show_table(screen: Screen, done: list[Done]) -> None:
    screen.title("The tasks")
    headers = ("PICTURE", "TASK", "STATUS", "ATTEMPTS", "WAITED", "RAN", "OUTPUT URL (the largest of 3)")
    screen.table(headers, [_row(one.task) for one in done])
    screen.detail("each look at a task gives fresh URLs, which work for an hour (here: as long as the server runs)")


def _row(task: Mapping[str, Any]) -> tuple[str, ...]:
    first = task["attempts"][0]["started_at"]
    waited = _seconds(task["created_at"], first)
    ran = _seconds(task["started_at"], task["ended_at"])
    largest = max(task["outputs"], key=lambda output: output["size"])
    attempts = str(len(task["attempts"]))
    return task["result"]["name"], task["id"], task["status"], attempts, waited, ran, largest["url"]


def _seconds(start: str, end: str) -> str:
    return f"{(datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds():.2f} s"


def _left(folder: Path) -> list[psutil.Process]:
    """Processes that belong to this demo: each has its folder, which nobody else knows, in its command line."""
    everyone = psutil.process_iter(["cmdline"])
    return [process for process in everyone if any(str(folder) in part for part in process.info["cmdline"] or ())]


def _check_gone(folder: Path) -> None:
    """Nothing that this demo started may live on."""
    left = [str(process.pid) for process in _left(folder)]
    if left:
        raise Failed(f"processes were left running: {', '.join(left)}")


if __name__ == "__main__":
    sys.exit(main())
