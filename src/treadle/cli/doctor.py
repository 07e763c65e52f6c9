"""`treadle doctor`: what this machine gives, and what to do where it gives less."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from treadle.cli.output import Json, console_for, print_json
from treadle.cli.up import Data
from treadle.model.settings import DEFAULT_PORT, load
from treadle.sdk.console import Console
from treadle.sdk.local import read_server_file

WIDTH = 100
MARKS = {"ok": "ok", "note": "note", "fault": "FAULT"}


def doctor(
    data: Data = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help=f"Port that a server is to have. [default: {DEFAULT_PORT}]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what this machine gives to containers, and why not more."""
    from treadle.agent.examine import Verdict, examine  # noqa: PLC0415 - heavy, and only this command needs it
    from treadle.cli.alive import process_of  # noqa: PLC0415

    settings = load(data=data, port=port)
    running = read_server_file(settings.data)
    console = console_for(as_json)
    with console.busy("Trying what this machine gives"):
        findings = examine(settings, ours=running is not None and process_of(running) is not None)
    faults = [finding for finding in findings if finding.verdict is Verdict.FAULT]
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            _show(console, finding.name, MARKS[finding.verdict], finding.found, finding.advice)
    console.say(_told(len(faults)))
    raise typer.Exit(1 if faults else 0)


def _show(console: Console, name: str, mark: str, found: str, advice: str) -> None:
    head = f"{mark:<7}{name:<13}"
    lines = textwrap.wrap(found, WIDTH - len(head), break_long_words=False, break_on_hyphens=False)
    lines += textwrap.wrap(f"→ {advice}", WIDTH - len(head), break_long_words=False) if advice else []
    for number, line in enumerate(lines):
        console.say((head if number == 0 else " " * len(head)) + line)


def _told(faults: int) -> str:
    if not faults:
        return "Treadle runs here."
    return f"Treadle does not run here: {faults} {'fault' if faults == 1 else 'faults'}."
