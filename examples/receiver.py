"""A receiver of webhooks: checks both signatures of each one, by hand and with the standardwebhooks package."""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from standardwebhooks.webhooks import Webhook

MAX_AGE = 300  # seconds


class Received(NamedTuple):
    """A webhook whose signatures are good, or `problem` says why it is not."""

    task_id: str
    status: str
    data: Any
    problem: str = ""


def check_task_signature(signing_key: str, headers: Mapping[str, str], body: bytes) -> None:
    """The signature in Beam's form, by hand: hex HMAC-SHA256 over base64(body) + ":" + timestamp.

    Raises:
        ValueError: the webhook is too old, or not from our server.
    """
    timestamp = headers["X-Task-Timestamp"]
    if abs(time.time() - int(timestamp)) > MAX_AGE:
        raise ValueError(f"it was signed more than {MAX_AGE} seconds ago")
    message = b64encode(body) + b":" + timestamp.encode()
    expected = hmac.new(signing_key.encode(), message, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, headers["X-Task-Signature"]):
        raise ValueError("X-Task-Signature is wrong")


def check_standard_signature(signing_key: str, headers: Mapping[str, str], body: bytes) -> None:
    """The signature of Standard Webhooks, with the package that its authors publish.

    Raises:
        WebhookVerificationError: the webhook is too old, or not from our server.
    """
    secret = "whsec_" + b64encode(signing_key.encode()).decode()
    Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()})


class Receiver:
    """Listens on a free port of this machine; what arrives comes out of `next()`."""

    def __init__(self, signing_key: str) -> None:
        self._key = signing_key
        self._inbox: queue.Queue[Received] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/thumbnails-done"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def next(self, seconds: float) -> Received | None:
        """The next webhook, or None if none comes within `seconds`."""
        try:
            return self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def take(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Check a webhook and keep it; False if it is not genuine."""
        try:
            check_task_signature(self._key, headers, body)
            check_standard_signature(self._key, headers, body)
            got = Received(headers["X-Task-ID"], headers["X-Task-Status"], json.loads(body)["data"])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it is refused
            got = Received(headers.get("X-Task-ID", "?"), "?", None, f"{type(error).__name__}: {error}")
        self._inbox.put(got)
        return not got.problem

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self.take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200 if take(dict(self.headers), body) else 400)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing: the demo tells what arrives."""

        return Handler
