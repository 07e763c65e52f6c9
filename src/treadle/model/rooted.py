"""Which images need a root file system of their own, which only an engine gives: Docker or Podman."""

from __future__ import annotations

import re
from itertools import dropwhile

from treadle.model.deployment import ImageSpec

# As much of a shell as it takes to find the first word of each command; nothing goes back over the text.
_BETWEEN = re.compile(r"[;&|(\n]|\bthen\b|\bdo\b")
_ASSIGNMENT = re.compile(r"\w+=")
_BEFORE = frozenset({"sudo", "env"})
_INSTALLERS = frozenset({"apt-get", "apt", "dpkg", "apk", "yum", "dnf", "zypper", "pacman"})


def needs_engine(spec: ImageSpec) -> str:
    """What of a definition needs a root file system of its own, in words; "" if nothing does."""
    if spec.dockerfile:
        return "a Dockerfile needs it"
    if spec.base_image:
        return f"base_image={spec.base_image!r} needs it"
    installing = next((command for command in spec.commands if _installs(command)), "")
    return f"the command {installing!r} installs system packages" if installing else ""


def _installs(command: str) -> bool:
    return any(_runs_installer(part) for part in _BETWEEN.split(command))


def _runs_installer(part: str) -> bool:
    """Whether a simple command is an installer of system packages; without a word of what, it does nothing."""
    words = dropwhile(lambda word: word in _BEFORE or _ASSIGNMENT.match(word), part.split())
    return next(words, "") in _INSTALLERS and next(words, "") != ""
