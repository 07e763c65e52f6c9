"""Which images need a root file system of their own, which only an engine gives: Docker or Podman."""

from __future__ import annotations

import re

from treadle.model.deployment import ImageSpec

_PREFIXES = r"(?:sudo\s+|env\s+|\w+=\S*\s+)*"
_START = r"(?:^|[;&|(\n]|\bthen\b|\bdo\b)\s*"
_INSTALLER = re.compile(rf"{_START}{_PREFIXES}(?:apt-get|apt|dpkg|apk|yum|dnf|zypper|pacman)\s")


def needs_engine(spec: ImageSpec) -> str:
    """What of a definition needs a root file system of its own, in words; "" if nothing does."""
    if spec.dockerfile:
        return "a Dockerfile needs it"
    if spec.base_image:
        return f"base_image={spec.base_image!r} needs it"
    installing = next((command for command in spec.commands if _INSTALLER.search(command)), "")
    return f"the command {installing!r} installs system packages" if installing else ""
