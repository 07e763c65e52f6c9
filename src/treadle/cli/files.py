"""`treadle ls`, `cp`, `rm` and `mv`: the files in volumes."""

from __future__ import annotations

from typing import Annotated

import typer

from treadle.cli.output import Json, client, client_with_server, console_for, local_time, print_json
from treadle.cli.places import FORM, Place, in_volume, parse
from treadle.cli.transfer import Plan, download, is_folder, plan_download, plan_upload, upload
from treadle.lines import one_line
from treadle.model.errors import InvalidInput
from treadle.sdk.console import Console, amount

Remote = Annotated[str, typer.Argument(metavar=FORM, help="A path in a volume.", show_default=False)]


def ls(place: Remote, as_json: Json = False) -> None:
    """List what is in a folder of a volume."""
    where = in_volume(place)
    found = client().volume_files(where.volume, where.path)
    if as_json:
        print_json(found)
        return
    console = console_for(as_json)
    rows = [
        (f"{one.path.rpartition('/')[2]}{'/' if one.kind == 'folder' else ''}", one.kind,
         amount(one.size) if one.kind == "file" else "", local_time(one.modified_at))
        for one in found
    ]  # fmt: skip
    console.table(("NAME", "KIND", "SIZE", "MODIFIED"), rows)
    console.say(f"{len(found)} {'item' if len(found) == 1 else 'items'}")


def cp(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="Files and folders.", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Where they go.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Copy files and folders into a volume, or out of it.

    Either TARGET or the one SOURCE is treadle://VOLUME/PATH; all else is on this machine.
    """
    console = console_for(as_json)
    places, end = [place for text in sources if (place := parse(text))], parse(target)
    if end is not None and not places:
        asked = client_with_server(console)
        plan = plan_upload(asked, sources, end)
        upload(asked, plan, console)
        _report(console, "Uploaded", plan, str(end))
    elif end is None and len(places) == len(sources) == 1:
        asked = client()
        plan = plan_download(asked, places[0], target)
        download(asked, plan, console)
        _report(console, "Downloaded", plan, target)
    else:
        raise InvalidInput("One of SOURCE and TARGET must be in a volume, the other on this machine.", f"Use {FORM}.")
    if as_json:
        print_json({"files": len(plan.steps), "size": plan.size, "left_out": plan.left_out})


def _report(console: Console, what: str, plan: Plan, target: str) -> None:
    for reason in plan.left_out:
        console.warn(f"Left out {one_line(reason)}")
    files = f"{len(plan.steps)} {'file' if len(plan.steps) == 1 else 'files'}"
    console.step(f"{what} {files} ({amount(plan.size)}) to {target}")


def rm(
    place: Remote,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Also a folder that is not empty, with all in it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove a file or a folder from a volume."""
    where = _inside(place)
    client().remove_volume_file(where.volume, where.path, deep=recursive)
    if as_json:
        print_json({"removed": str(where)})
    console_for(as_json).say(f"Removed {where}.")


def mv(
    source: Remote,
    target: Annotated[str, typer.Argument(metavar=FORM, help="Its new path.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Move a file or folder within volumes."""
    start, end, asked = _inside(source), in_volume(target), client()
    if end.as_folder or is_folder(asked, end):
        end = end.below(start.path.rpartition("/")[2])
    moved = asked.move_volume_file(start.volume, start.path, end.volume, end.path)
    if as_json:
        print_json(moved)
    console_for(as_json).say(f"Moved {start} to {end}.")


def _inside(text: str) -> Place:
    place = in_volume(text)
    if not place.path:
        raise InvalidInput(f"{place} is the whole volume.", "Name a file or folder in it.")
    return place
