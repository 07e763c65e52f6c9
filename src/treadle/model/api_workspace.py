"""JSON shapes of the HTTP API for what a workspace has besides tasks: its signing key, secrets and volumes."""

from __future__ import annotations

import msgspec


class KeyView(msgspec.Struct, frozen=True):
    signing_key: str


class NewSecret(msgspec.Struct, frozen=True):
    """POST /v2/secrets."""

    name: str
    value: str


class NewValue(msgspec.Struct, frozen=True):
    """PATCH /v2/secrets/{name}."""

    value: str


class SecretView(msgspec.Struct, frozen=True):
    """A secret without its value."""

    name: str
    created_at: str
    updated_at: str


class SecretShown(msgspec.Struct, frozen=True):
    """GET /v2/secrets/{name}: the one answer that has the value."""

    name: str
    value: str
    created_at: str
    updated_at: str


class NewVolume(msgspec.Struct, frozen=True):
    """POST /v2/volumes."""

    name: str


class VolumeMade(msgspec.Struct, frozen=True):
    """Answer of POST /v2/volumes."""

    name: str
    created_at: str
    created: bool  # False: it existed


class VolumeView(msgspec.Struct, frozen=True):
    name: str
    created_at: str
    files: int
    size: int  # bytes


class FileView(msgspec.Struct, frozen=True):
    """What is in a volume. `kind`: file, folder, link or other; links are not followed."""

    path: str
    kind: str
    size: int  # bytes; 0 unless it is a file
    modified_at: str


class Move(msgspec.Struct, frozen=True):
    """POST /v2/volumes/{name}/move: from a path in that volume to one in `volume` ("": the same)."""

    source: str
    target: str
    volume: str = ""


class NewToken(msgspec.Struct, frozen=True):
    """POST /v2/tokens. Beam's clients name a kind of token in place of a role."""

    role: str = ""
    name: str = ""
    token_type: str = ""


class TokenView(msgspec.Struct, frozen=True):
    """A token without what opens doors. `external_id` and `token_type` are Beam's."""

    id: str
    external_id: str
    name: str
    role: str
    token_type: str
    active: bool
    created_at: str


class TokenMade(TokenView, frozen=True):
    """Answer of POST /v2/tokens: the one answer that has the token itself."""

    token: str


class TokenGone(msgspec.Struct, frozen=True):
    """Answer of DELETE /v2/tokens/{id}."""

    ok: bool = True
