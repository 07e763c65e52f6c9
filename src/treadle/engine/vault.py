"""Seals secrets with AES-256-GCM under a key in a file of its own, so that the database alone opens nothing.

A sealed value is a format byte, a nonce of 12 bytes, the ciphertext and its tag of 16 bytes (NIST SP 800-38D).
Workspace and name are the associated data: a value that is moved to another row does not open.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.model.errors import TreadleError
from treadle.model.secret import Secret
from treadle.store.snapshot import onto_disk

if TYPE_CHECKING:  # what the first secret loads: 7 MB, which a server without secrets does without
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = b"\x01"
NONCE = 12  # bytes
KEY = 32  # bytes


class Vault:
    """The key is read when it is first needed, and made by the first `seal`. `random` gives so many random bytes."""

    def __init__(self, key_file: Path, random: Callable[[int], bytes]) -> None:
        self._key_file = key_file
        self._random = random
        self._key = b""

    def seal(self, workspace_id: int, name: str, value: str) -> bytes:
        """Encrypt.

        Raises:
            TreadleError: the key is there but cannot be used.
        """
        if not self._key_file.exists():
            self._key = self._key or self._random(KEY)
            _write_key(self._key_file, self._key)
        nonce = self._random(NONCE)
        return FORMAT + nonce + self._cipher().encrypt(nonce, value.encode(), _bound_to(workspace_id, name))

    def open(self, secret: Secret) -> str:
        """Decrypt.

        Raises:
            TreadleError: the key is not there, or not the one that sealed this.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see the top of the file

        sealed, nonce = secret.sealed[len(FORMAT) + NONCE :], secret.sealed[len(FORMAT) :][:NONCE]
        try:
            opened = self._cipher().decrypt(nonce, sealed, _bound_to(secret.workspace_id, secret.name))
        except InvalidTag:
            raise TreadleError(
                f"Secret {secret.name} was not encrypted with the key in {self._key_file}.",
                f"Bring the right key back, or set it again: `treadle secret modify {secret.name}`.",
            ) from None
        return opened.decode()

    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - see the top of the file

        self._key = self._key or _read_key(self._key_file)
        return AESGCM(self._key)


def _bound_to(workspace_id: int, name: str) -> bytes:
    return f"{workspace_id}/{name}".encode()


def _read_key(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise TreadleError(f"{path} can be read by other users.", f"Run `chmod 600 {path}`.")
        key = b64decode(path.read_bytes().strip(), validate=True)
    except OSError as error:
        advice = "Bring it back from a copy; without it secrets have to be set again with `treadle secret modify`."
        raise TreadleError(f"The key of the secrets, {path}, cannot be read: {error.strerror}.", advice) from None
    except ValueError:
        key = b""
    if len(key) != KEY:
        raise TreadleError(f"{path} does not hold a key ({KEY} bytes in base64).", "Bring it back from a copy.")
    return key


def _write_key(path: Path, key: bytes) -> None:
    """Make the file, whole and on disk before anything is sealed with it."""
    draft = path.with_name(path.name + ".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(b64encode(key) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    onto_disk(path.parent)
