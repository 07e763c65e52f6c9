"""A volume as the user declares it: a name, and where its files are to be found."""

from __future__ import annotations

from treadle.model.volume import VolumeMount, check_mount_path, check_volume_name


class Volume:
    """A folder shared by all containers that mount it, kept over deploys, and made when it is first used.

    `mount_path` is below the working directory (`"./weights"`), or absolute, which takes isolation level 2.

    Raises:
        InvalidOption: the name or the path has a form that is not allowed.
    """

    def __init__(self, name: str, mount_path: str) -> None:
        self.name = check_volume_name(name)
        self.mount_path = check_mount_path(mount_path)

    @property
    def mount(self) -> VolumeMount:
        """The definition as it is sent to the server."""
        return VolumeMount(self.name, self.mount_path)
