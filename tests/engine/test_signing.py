"""Signatures hold for what was signed and for nothing else."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from treadle import __version__
from treadle.engine.signing import (
    beam_signature,
    check_output_url,
    new_signing_key,
    sign_output_url,
    standard_secret,
    standard_signature,
    webhook_headers,
)
from treadle.model.errors import InvalidInput

KEY = "sk_ZXhhbXBsZS1rZXk="
BODY = b'{"data": {"width": 128}}'
STAMP = 1770112809
bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
).map(lambda value: b'{"data": ' + json.dumps(value).encode() + b"}")


def test_beams_test_vector() -> None:
    """Key, body and timestamp of the specification give the signature of the specification."""
    assert beam_signature(KEY, BODY, STAMP) == "f70088bf62d29ce9ea05f9461b9148ae978efe8603d9519a29f1606aa15bfdf7"


def test_a_new_key_is_sk_and_base64() -> None:
    """The random bytes are all in the key."""
    assert new_signing_key(b"example-key") == KEY


def test_the_standard_secret_is_whsec_and_base64_of_the_whole_key() -> None:
    """`sk_` belongs to the secret."""
    assert standard_secret(KEY) == "whsec_c2tfWlhoaGJYQnNaUzFyWlhrPQ=="


@given(st.binary(min_size=24, max_size=48), bodies)
def test_an_independent_verifier_accepts_our_webhooks(random_bytes: bytes, body: bytes) -> None:
    """The `standardwebhooks` package verifies the headers with `standard_secret`."""
    key = new_signing_key(random_bytes)
    headers = webhook_headers(
        key, message_id="msg_1", task_id="1", status="COMPLETE", body=body, timestamp=int(time.time())
    )
    Webhook(standard_secret(key)).verify(body, headers)


@given(bodies, st.sampled_from(["body", "id", "timestamp", "key"]))
def test_an_independent_verifier_refuses_what_was_changed(body: bytes, changed: str) -> None:
    """Another body, id, timestamp or key does not verify."""
    now = int(time.time())
    headers = webhook_headers(KEY, message_id="msg_1", task_id="1", status="FAILED", body=body, timestamp=now)
    key = KEY
    if changed == "body":
        body += b" "
    elif changed == "id":
        headers["webhook-id"] = "msg_2"
    elif changed == "timestamp":
        headers["webhook-timestamp"] = str(now - 1)
    else:
        key = KEY + "x"
    with pytest.raises(WebhookVerificationError):
        Webhook(standard_secret(key)).verify(body, headers)


@given(st.binary(), st.integers(0, 2**40), st.binary(), st.integers(0, 2**40))
def test_signatures_differ_when_anything_differs(body: bytes, stamp: int, other: bytes, later: int) -> None:
    """Two messages have one signature only if they are the same message."""
    same = (body, stamp) == (other, later)
    assert (beam_signature(KEY, body, stamp) == beam_signature(KEY, other, later)) == same
    assert (standard_signature(KEY, "m", stamp, body) == standard_signature(KEY, "m", later, other)) == same


def test_all_headers_of_a_webhook() -> None:
    """Beam's four, the three of Standard Webhooks, and who sends what."""
    headers = webhook_headers(KEY, message_id="msg_1", task_id="t1", status="COMPLETE", body=BODY, timestamp=STAMP)
    assert headers == {
        "Content-Type": "application/json",
        "User-Agent": f"Treadle/{__version__}",
        "X-Task-ID": "t1",
        "X-Task-Status": "COMPLETE",
        "X-Task-Signature": beam_signature(KEY, BODY, STAMP),
        "X-Task-Timestamp": "1770112809",
        "webhook-id": "msg_1",
        "webhook-timestamp": "1770112809",
        "webhook-signature": standard_signature(KEY, "msg_1", STAMP, BODY),
    }


def test_an_output_url_holds_until_it_expires() -> None:
    """The signature opens the output before `expires_at`, not from then on."""
    signature = sign_output_url(KEY, "out", STAMP)
    check_output_url(KEY, "out", STAMP, signature, STAMP - 0.01)
    with pytest.raises(InvalidInput, match="invalid output id") as refused:
        check_output_url(KEY, "out", STAMP, signature, STAMP)
    assert (refused.value.status, refused.value.code) == (400, "invalid")
    assert refused.value.message == "invalid output id"


@given(st.text(max_size=8), st.integers(0, 2**40), st.text(max_size=8), st.integers(0, 2**40))
def test_a_signature_opens_only_its_own_url(output_id: str, expires_at: int, other: str, later: int) -> None:
    """Another output, or a later end, needs another signature."""
    signature = sign_output_url(KEY, output_id, expires_at)
    if (output_id, expires_at) == (other, later):
        check_output_url(KEY, other, later, signature, now=-1)
    else:
        with pytest.raises(InvalidInput):
            check_output_url(KEY, other, later, signature, now=-1)


@given(st.text())
def test_guessed_signatures_are_refused(signature: str) -> None:
    """Any text, ASCII or not, is refused with the same error."""
    with pytest.raises(InvalidInput, match="invalid output id"):
        check_output_url(KEY, "out", STAMP, signature, now=0)
