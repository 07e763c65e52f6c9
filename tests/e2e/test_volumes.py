"""Volumes end to end: shared by containers, kept over deploys, filled and read from the command line."""

from __future__ import annotations

import filecmp
import json
import os
from pathlib import Path

import psutil
import pytest
from place import Place, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def _notes(place: Place) -> None:
    place.share_notes()


def app(name: str, body: str, *, volume: str = "shared", path: str = "./shared", **options: str) -> str:
    more = "".join(f", {key}={value}" for key, value in options.items())
    return f"""
import os
from pathlib import Path
from notes import meet, note
from treadle import QueueDepthAutoscaler, Volume, task_queue

@task_queue(name="{name}", volumes=[Volume("{volume}", "{path}")]{more})
def handler(folder=""):
{body}
"""


# containers


def test_two_containers_write_into_one_volume(place: Place, tmp_path: Path) -> None:
    """At the same time; each sees what the other has written."""
    body = """
    meet(folder, 2)
    Path("shared", os.environ["CONTAINER_ID"]).write_text("written")
    while len(list(Path("shared").iterdir())) < 2:
        pass
    return sorted(path.name for path in Path("shared").iterdir())
"""
    place.deploy(app("both", body, volume="both", autoscaler="QueueDepthAutoscaler(max_containers=2)"), name="both")
    tasks = [place.ended(task_id) for task_id in [place.submit("both", folder=str(tmp_path)) for _ in range(2)]]
    assert tasks[0]["result"] == tasks[1]["result"] == sorted(task["container_id"] for task in tasks)


def test_a_volume_outlives_containers_and_deploys(place: Place) -> None:
    """What one version wrote, the next one reads, in another container and at another path."""
    write = '    Path("shared/sub").mkdir()\n    Path("shared/sub/kept").write_text("of version 1")\n    return True\n'
    place.deploy(app("kept", write, volume="kept", keep_warm_seconds="0"), name="kept")
    first = place.submit("kept")
    assert place.ended(first)["result"] is True
    until(lambda: place.task(first)["stats"]["active_containers"] == 0, what="scaling to zero")
    read = '    return Path("other/place/sub/kept").read_text()\n'
    place.deploy(app("kept", read, volume="kept", path="other/place"), name="kept")
    assert place.ended(place.submit("kept"))["result"] == "of version 1"


def test_a_volume_hides_a_folder_of_the_source_which_is_not_even_sent(place: Place) -> None:
    """A folder of that name beside the code stays here."""
    (place.code / "hidden").mkdir()
    (place.code / "hidden" / "large.bin").write_bytes(os.urandom(300_000))
    place.app(app("hidden", '    return [path.name for path in Path("hidden").iterdir()]\n', volume="hidden", path="hidden"), "hides.py")
    done = place.cli("deploy", "hides.py:handler")
    assert done.returncode == 0, done.stderr
    assert " kB)" in done.stdout or " B)" in done.stdout, done.stdout
    assert "300 kB" not in done.stdout
    assert place.ended(place.submit("hidden"))["result"] == []


def test_a_wrong_path_is_refused_where_it_is_written(place: Place) -> None:
    """With file and line."""
    place.app(app("wrong", "    return 1\n", path="../outside"), "wrong.py")
    done = place.cli("deploy", "wrong.py:handler")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "wrong.py:7: mount_path='../outside' is not allowed" in done.stderr


# the command line


def test_files_go_in_and_come_out(place: Place, tmp_path: Path) -> None:
    """Folders and files, seen by a container meanwhile, and the same at the end."""
    folder = tmp_path / "models"
    (folder / "deep" / "er").mkdir(parents=True)
    for name, size in (("a.bin", 3_000_000), ("deep/b.bin", 1), ("deep/er/empty", 0), ("deep/with space é.txt", 20)):
        (folder / name).write_bytes(os.urandom(size))
    done = place.cli("cp", str(folder), "treadle://trip")
    assert (done.returncode, done.stdout) == (0, "=> Uploaded 4 files (3.0 MB) to treadle://trip/\n"), done.stderr
    place.deploy(app("trip", '    return sorted(str(p) for p in Path("shared").rglob("*") if p.is_file())\n', volume="trip"), name="trip")
    inside = ["a.bin", "deep/b.bin", "deep/er/empty", "deep/with space é.txt"]
    assert place.ended(place.submit("trip"))["result"] == [f"shared/models/{name}" for name in inside]
    assert json.loads(place.cli("cp", "beam://trip/models", str(tmp_path / "back"), "--json").stdout)["files"] == 4
    compared = filecmp.cmpfiles(folder, tmp_path / "back", inside, shallow=False)
    assert compared == (inside, [], [])


def test_cp_goes_where_cp_would(place: Place, tmp_path: Path) -> None:
    """Into a folder that is there or ends with a slash, else to the very path; both ways."""
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    place.cli("cp", str(tmp_path / "one"), "treadle://where/exact")
    place.cli("cp", str(tmp_path / "one"), "treadle://where/folder/")
    place.cli("cp", str(tmp_path / "two"), "treadle://where/folder")
    place.cli("cp", str(tmp_path / "one"), str(tmp_path / "two"), "beta9://where/both")
    listed = json.loads(_files(place, "where"))
    assert listed == ["both/one", "both/two", "exact", "folder/one", "folder/two"]
    place.cli("cp", "treadle://where/exact", str(tmp_path))
    place.cli("cp", "treadle://where/folder", f"{tmp_path}/new")
    place.cli("cp", "treadle://where/folder", f"{tmp_path}/new")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"one", "two", "exact", "new/one", "new/two", "new/folder/one", "new/folder/two"}


def _files(place: Place, volume: str) -> str:
    answer = place.request("GET", f"/v2/volumes/{volume}/files", params={"deep": "true"})
    return json.dumps([entry["path"] for entry in answer.json() if entry["kind"] == "file"])


def test_ls_mv_and_rm(place: Place, tmp_path: Path) -> None:
    """A table for people; the scheme may be left out."""
    (tmp_path / "a").write_bytes(b"x" * 1500)
    place.cli("cp", str(tmp_path / "a"), "treadle://moving/x/a")
    lines = place.cli("ls", "moving/x").stdout.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "SIZE", "MODIFIED"]
    assert lines[1].split()[:4] == ["a", "file", "1.5", "kB"]
    assert place.cli("mv", "treadle://moving/x/a", "treadle://moving/y/b").stdout == "Moved treadle://moving/x/a to treadle://moving/y/b.\n"
    assert place.cli("mv", "moving/y/b", "moving/x").stdout == "Moved treadle://moving/y/b to treadle://moving/x/b.\n"
    refused = place.cli("rm", "moving/x")
    assert refused.returncode == 1 and "--recursive" in refused.stderr
    assert place.cli("rm", "-r", "moving/x").stdout == "Removed treadle://moving/x.\n"
    assert json.loads(place.cli("ls", "moving", "--json").stdout)[0]["path"] == "y"


def test_the_volume_commands(place: Place, tmp_path: Path) -> None:
    """Made, listed with what it holds, deleted; one that is used only by force."""
    assert place.cli("volume", "create", "plain").stdout == "Volume plain created.\n"
    assert place.cli("volume", "create", "plain").stdout == "Volume plain exists already.\n"
    (tmp_path / "a").write_bytes(b"x" * 1500)
    place.cli("cp", str(tmp_path / "a"), "treadle://plain")
    (line,) = [line for line in place.cli("volume", "list").stdout.splitlines() if line.startswith("plain ")]
    assert line.split()[1:4] == ["1", "1.5", "kB"]
    place.deploy(app("user", "    return 1\n", volume="plain"), name="user")
    refused = place.cli("volume", "delete", "plain")
    assert refused.returncode == 1 and "is used by user v1" in refused.stderr
    assert place.cli("volume", "delete", "plain", "--force").stdout == "Volume plain deleted.\n"
    assert not (place.data / "volumes" / "default" / "plain").exists()


def test_a_link_of_a_container_is_left_out_of_a_copy(place: Place, tmp_path: Path) -> None:
    """What it leads to is not handed out, and the command says what it left."""
    body = '    Path("shared/link").symlink_to("/etc/passwd")\n    Path("shared/file").write_text("mine")\n    return True\n'
    place.deploy(app("linked", body, volume="linked"), name="linked")
    assert place.ended(place.submit("linked"))["result"] is True
    done = place.cli("cp", "treadle://linked", str(tmp_path / "out"))
    assert done.stdout.splitlines()[0] == "! Left out treadle://linked/link: a link"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]
    assert place.cli("cp", "treadle://linked/link", str(tmp_path / "passwd")).stdout.splitlines()[-1].startswith("=> Downloaded 0 files")
    assert not (tmp_path / "passwd").exists()


@pytest.mark.parametrize("args", [("a", "b"), ("treadle://v/a", "treadle://v/b"), ("treadle://v/a", "treadle://v/b", "c")])
def test_one_side_of_a_copy_is_in_a_volume(place: Place, args: tuple[str, ...]) -> None:
    """Anything else is told, with the form."""
    done = place.cli("cp", *args)
    assert (done.returncode, done.stdout) == (1, "")
    assert "must be in a volume" in done.stderr and "treadle://VOLUME/PATH" in done.stderr


def test_a_large_file_passes_through_a_small_memory(own_place: Place, tmp_path: Path) -> None:
    """256 MiB up and down; the server grows by a tenth of it at most."""
    place = own_place.up()
    assert place.process is not None
    size = 256 * 1024 * 1024
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)
    server = psutil.Process(place.process.pid)
    place.cli("volume", "create", "large")
    before = server.memory_info().rss
    assert place.cli("cp", str(tmp_path / "big"), "treadle://large/big").returncode == 0
    assert place.cli("cp", "treadle://large/big", str(tmp_path / "back")).returncode == 0
    peak = int(next(line for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    assert peak - before < size / 10
    assert (tmp_path / "back").stat().st_size == size
    assert place.stop() == 0
