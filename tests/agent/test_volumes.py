"""How a container finds its volumes: links in its own copy of the source."""

from __future__ import annotations

from pathlib import Path

from treadle.agent.volumes import lay_out
from treadle.depths import remove
from treadle.model.wire import Mount


def test_a_relative_path_is_a_link_to_the_volume(tmp_path: Path) -> None:
    """Whose folder is made if there is none; a root folder of the container's own is to show it below /volumes, too."""
    code, volume = tmp_path / "code", tmp_path / "volumes" / "default" / "weights"
    code.mkdir()
    assert lay_out(code, [Mount(str(volume), "models/big")]) == [Mount(str(volume), "/volumes/models/big")]
    (code / "models" / "big" / "file").write_text("kept")
    assert (volume / "file").read_text() == "kept"


def test_an_absolute_path_is_for_a_root_folder_of_its_own(tmp_path: Path) -> None:
    """Nothing is linked."""
    code, volume = tmp_path / "code", tmp_path / "volume"
    code.mkdir()
    assert lay_out(code, [Mount(str(volume), "/data")]) == [Mount(str(volume), "/data")]
    assert volume.is_dir() and list(code.iterdir()) == []


def test_a_volume_hides_what_the_source_has_there(tmp_path: Path) -> None:
    """A folder or a file of this copy."""
    code, volume = tmp_path / "code", tmp_path / "volume"
    (code / "folder").mkdir(parents=True)
    (code / "folder" / "old").touch()
    (code / "file").touch()
    lay_out(code, [Mount(str(volume), "folder"), Mount(str(volume), "file")])
    assert list((code / "folder").iterdir()) == list((code / "file").iterdir()) == []


def test_a_container_that_is_cleared_away_leaves_its_volumes(tmp_path: Path) -> None:
    """Its folder goes with the links in it; two containers have seen one folder."""
    volume = tmp_path / "volume"
    for name in ("one", "two"):
        code = tmp_path / name
        code.mkdir()
        lay_out(code, [Mount(str(volume), "shared")])
        (code / "shared" / name).touch()
    remove(tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "two" / "shared").iterdir()) == ["one", "two"]
