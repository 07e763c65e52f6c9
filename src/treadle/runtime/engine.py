"""A container engine, Docker or Podman, spoken to by its command line."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from collections.abc import Sequence

from treadle.model.errors import TreadleError

PROGRAMS = ("docker", "podman")
_SECONDS = 60.0  # for any question to answer
_KEPT = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "DOCKER_", "CONTAINER", "XDG_", "SSL_CERT_", "DBUS_")


class EngineFailed(TreadleError):
    """The engine refused, in its own words."""


class Engine:
    """One engine that answers."""

    def __init__(self, program: str) -> None:
        self.program = program

    def run(self, *args: str) -> str:
        """Have it do something; what it prints.

        Raises:
            EngineFailed: what it says of the failure.
        """
        try:
            done = subprocess.run(
                [self.program, *args],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=environ(),
                timeout=_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise EngineFailed(f"{self.program} {args[0]} did not answer within {_SECONDS:g} s.") from None
        if done.returncode != 0:
            raise EngineFailed(_said(done.stderr) or f"{self.program} {args[0]} ended with {done.returncode}.")
        return done.stdout.strip()

    def ask(self, *args: str) -> str:
        """Like `run`, but "" where it refuses: there is no such container or image."""
        try:
            return self.run(*args)
        except EngineFailed:
            return ""


def find(programs: Sequence[str] = PROGRAMS) -> tuple[Engine | None, str]:
    """An engine that answers; or none, and why."""
    why = []
    for program in programs:
        if shutil.which(program) is None:
            continue
        engine = Engine(program)
        try:
            engine.run("info", "--format", "{{.ID}}" if program == "docker" else "{{.Host.Arch}}")
        except EngineFailed as error:
            why.append(f"{program} does not answer: {error.message}")
        else:
            return engine, ""
    return None, " ".join(why) or f"Neither {' nor '.join(programs)} is installed."


def bound(source: str, target: str, *, readonly: bool = False) -> list[str]:
    """The arguments that show a container a file or folder of the machine.

    The engines read the value of --mount as a line of CSV (RFC 4180): what holds a comma is quoted.
    """
    fields = ["type=bind", f"source={source}", f"target={target}", *(["readonly"] if readonly else [])]
    line = io.StringIO()
    csv.writer(line).writerow(fields)
    return ["--mount", line.getvalue().removesuffix("\r\n")]


def environ() -> dict[str, str]:
    """What of the agent's environment the engine's command needs: which engine, and whose login."""
    known = os.environ.items()
    return {key: value for key, value in known if key.startswith(_KEPT) or key.lower().endswith("_proxy")}


def _said(text: str) -> str:
    """The first line of an engine's error, without its own prefixes; it goes on with how to get help."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    for prefix in ("Error response from daemon: ", "Error: ", "error: ", "docker: "):
        line = line.removeprefix(prefix)
    return line
