"""Signatures: Beam's and Standard Webhooks' of webhooks, and those of output URLs."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

from treadle import __version__
from treadle.model.errors import InvalidInput


def new_signing_key(random_bytes: bytes) -> str:
    """A key `sk_…` that signs a workspace's webhooks or URLs, from 32 random bytes."""
    return "sk_" + b64encode(random_bytes).decode()


def beam_signature(key: str, body: bytes, timestamp: int) -> str:
    """Beam's webhook signature: hex HMAC-SHA256 of base64(body) + ":" + timestamp.

    The HMAC key is the whole signing-key string, `sk_` included.
    """
    message = b64encode(body) + b":" + str(timestamp).encode()
    return hmac.new(key.encode(), message, hashlib.sha256).hexdigest()


def standard_signature(key: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of Standard Webhooks (version 1, symmetric).

    Its HMAC key is what `standard_secret(key)` encodes: the bytes of the whole signing-key string, as in Beam's
    signature, so that one key serves both.
    """
    message = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + b64encode(hmac.new(key.encode(), message, hashlib.sha256).digest()).decode()


def standard_secret(key: str) -> str:
    """The signing key in the form that Standard Webhooks libraries take.

    It is `whsec_` + base64 of the whole `sk_…` string's bytes (not of the random bytes inside it).
    """
    return "whsec_" + b64encode(key.encode()).decode()


def webhook_headers(
    key: str, *, message_id: str, task_id: str, status: str, body: bytes, timestamp: int
) -> dict[str, str]:
    """All headers of one try of a webhook: Beam's and those of Standard Webhooks, signed at `timestamp`."""
    return {
        "Content-Type": "application/json",
        "User-Agent": f"Treadle/{__version__}",
        "X-Task-ID": task_id,
        "X-Task-Status": status,
        "X-Task-Signature": beam_signature(key, body, timestamp),
        "X-Task-Timestamp": str(timestamp),
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": standard_signature(key, message_id, timestamp, body),
    }


def sign_output_url(key: str, output_id: str, expires_at: int) -> str:
    """The signature that an output's URL carries beside `expires_at` (Unix seconds)."""
    return hmac.new(key.encode(), f"output:{output_id}:{expires_at}".encode(), hashlib.sha256).hexdigest()


def check_output_url(key: str, output_id: str, expires_at: int, signature: str, now: float) -> None:
    """Let a genuine URL through until `expires_at`.

    Raises:
        InvalidInput: it is expired or was changed; which of the two is not told (Beam's answer for both).
    """
    expected = sign_output_url(key, output_id, expires_at)
    genuine = hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))
    if not genuine or now >= expires_at:
        raise InvalidInput("invalid output id", "The URL is expired or changed; get the task again for a fresh one.")
