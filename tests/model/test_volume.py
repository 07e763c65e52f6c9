"""Names and paths of volumes."""

from __future__ import annotations

import pytest

from treadle.model.deployment import QueueConfig, check_config
from treadle.model.errors import InvalidOption
from treadle.model.volume import VolumeMount, check_mount_path, check_volume_name


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("./weights", "weights"), ("weights/", "weights"), ("a//b/./c", "a/b/c"), ("/data", "/data"),
        ("/models/x/", "/models/x"), ("/volumes/x", "/volumes/x"), ("/etcetera", "/etcetera"), ("...", "..."),
    ],
)  # fmt: skip
def test_a_mount_path_is_written_in_one_form(given: str, path: str) -> None:
    """Which stays as it is."""
    assert check_mount_path(given) == path
    assert check_mount_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "./", "/", "..", "../x", "a/../../x", "/data/../etc", "/etc", "/etc/x", "/usr/lib", "/proc/self", "/dev",
        "//server/share", "a\0b", "a\nb", "a\x1bb", "a\u2028b", "x" * 2000, None, 5,
        "/x,source=/,target=/host", "a,b", '/x"y', '"x"',
    ],
)  # fmt: skip
def test_a_mount_path_that_leads_elsewhere_is_refused(path: object) -> None:
    """Upwards, onto the system's folders, or nowhere; the error names it."""
    with pytest.raises(InvalidOption, match="mount_path="):
        check_mount_path(path)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "é", "x" * 65, None])
def test_a_name_is_that_of_a_folder(name: object) -> None:
    """Without slashes, and not hidden."""
    with pytest.raises(InvalidOption, match="Volume name "):
        check_volume_name(name)


@pytest.mark.parametrize(("one", "other"), [("a", "a"), ("a", "a/b"), ("/data/x", "/data"), ("a/b", "a")])
def test_no_volume_is_mounted_inside_another(one: str, other: str) -> None:
    """Nor twice at one path; names may repeat."""
    mounts = (VolumeMount("v", one), VolumeMount("v", "beside"), VolumeMount("v", other))
    with pytest.raises(InvalidOption, match="is not apart from"):
        check_config(QueueConfig(handler="app:f", volumes=mounts))
    check_config(QueueConfig(handler="app:f", volumes=mounts[:2]))


def test_a_definition_that_did_not_come_from_the_sdk_is_checked_too() -> None:
    """A path in another form is no path."""
    for path in ("./a", "a/", "../a"):
        with pytest.raises(InvalidOption):
            check_config(QueueConfig(handler="app:f", volumes=(VolumeMount("v", path),)))
