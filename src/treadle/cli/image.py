"""`treadle image`: what images are on the machines, and removing those that nothing uses."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from treadle.cli.output import Json, client, console_for, print_json
from treadle.cli.usage import Command
from treadle.model.api import ImageView, Pruned
from treadle.model.errors import InvalidInput
from treadle.sdk.console import Console, amount

images = typer.Typer(name="image", help="Images: list, prune.")
SHORT = 12  # characters of an id
WIDE = 40  # characters of a list


@images.command("list", cls=Command)
def list_(as_json: Json = False) -> None:
    """List the images on the machines, the last used first."""
    found = client().images()
    if as_json:
        print_json(found)
        return
    console = console_for(as_json)
    headers = ("IMAGE ID", "PYTHON", "PACKAGES", "SIZE", "USED BY", "LAST USED")
    console.table(headers, [_row(view) for view in found])
    console.say(f"{_count(found)}, {amount(sum(view.size for view in found))}")


@images.command(cls=Command)
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove images that no active deployment, container or unfinished task uses.

    One that is needed again is built again, from the same lock.
    """
    server, console = client(), console_for(as_json)
    if not (dry_run or yes):
        planned = server.prune_images(dry_run=True)
        if planned.removed:
            _ask(planned, console)
    done = server.prune_images(dry_run=dry_run)
    if as_json:
        print_json(done)
    else:
        _show(done, console)


def _ask(planned: Pruned, console: Console) -> None:
    """Show what would be removed, and go on only if somebody there says yes."""
    if not sys.stdin.isatty():
        advice = "Add --yes to remove them, or --dry-run to see which."
        raise InvalidInput(f"{_count(planned.removed)} would be removed.", advice)
    _show(planned, console)
    if not typer.confirm(f"Remove {_count(planned.removed)}?", err=True):
        raise InvalidInput("Nothing was removed.")


def _show(pruned: Pruned, console: Console) -> None:
    if not pruned.removed:
        console.say("Nothing to remove: every image is in use.")
        return
    headers = ("IMAGE ID", "PYTHON", "PACKAGES", "SIZE", "FREED", "LAST USED")
    rows = [_row(view) for view in pruned.removed]
    freed = [amount(view.freed) for view in pruned.removed]
    console.table(headers, [(*row[:4], size, row[5]) for row, size in zip(rows, freed, strict=True)])
    verb = "to be removed" if pruned.dry_run else "removed"
    console.say(f"{_count(pruned.removed)} {verb}, {amount(pruned.freed)} freed")
    shared = sum(view.size - view.freed for view in pruned.removed)
    if shared > 0:
        console.say(f"{amount(shared)} of their files stay: uv's cache (`uv cache clean`) or other images have them")


def _row(view: ImageView) -> tuple[str, ...]:
    packages = ", ".join([*([f"from {view.base_image}"] if view.base_image else []), *view.packages])
    used = ", ".join(view.used_by)
    return (view.id[:SHORT], view.python, _cut(packages) or "-", amount(view.size), _cut(used) or "-", _ago(view))


def _cut(text: str) -> str:
    return text if len(text) <= WIDE else f"{text[: WIDE - 1]}…"


def _ago(view: ImageView) -> str:
    """How long ago it was last used, in its largest unit."""
    passed = datetime.now(UTC) - datetime.fromisoformat(view.last_used)
    for unit, seconds in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if passed >= timedelta(seconds=seconds):
            count = int(passed.total_seconds()) // seconds
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def _count(found: list[ImageView]) -> str:
    return f"{len(found)} {'image' if len(found) == 1 else 'images'}"
