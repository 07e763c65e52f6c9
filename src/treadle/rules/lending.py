"""What a container may give to the drafts it makes: nothing that it has not itself."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.model.deployment import QueueConfig
from treadle.rules.gpus import ANY


def not_lent(asked: QueueConfig, lender: QueueConfig) -> list[str]:
    """What one definition asks for and the other, that of the container which asks, has not; in words."""
    return [*_taken_in(asked, lender), *_resources(asked, lender), *_ways_out(asked, lender)]


def _taken_in(asked: QueueConfig, lender: QueueConfig) -> Iterator[str]:
    """A volume is one thing with its path: at another one it would hide what the source has there."""
    yield from (f"secret {name}" for name in asked.secrets if name not in lender.secrets)
    yield from (f"volume {one.name} at {one.mount_path!r}" for one in asked.volumes if one not in lender.volumes)


def _resources(asked: QueueConfig, lender: QueueConfig) -> Iterator[str]:
    own = {name.upper() for name in lender.gpus}
    yield from (f"gpu={name}" for name in asked.gpus if name.upper() not in own and ANY not in own)
    if asked.gpus and asked.gpu_count > lender.gpu_count:
        yield f"gpu_count={asked.gpu_count} (it has {lender.gpu_count})"
    if asked.memory > lender.memory:
        yield f"memory={asked.memory} MiB (it has {lender.memory})"
    if asked.cpu > lender.cpu:
        yield f"cpu={asked.cpu / 1000:g} (it has {lender.cpu / 1000:g})"
    for option in ("max_containers", "min_containers"):
        wanted, held = getattr(asked.autoscaler, option), getattr(lender.autoscaler, option)
        if wanted > held:
            yield f"{option}={wanted} (it has {held})"


def _ways_out(asked: QueueConfig, lender: QueueConfig) -> Iterator[str]:
    """How code or results of the draft could get further than the container itself: to the network, to strangers."""
    if lender.block_network and not asked.block_network:
        yield "a network"
    if asked.min_isolation < lender.min_isolation:
        yield f"min_isolation={asked.min_isolation}"
    if lender.authorized and not asked.authorized:
        yield "authorized=False"
    if asked.callback_url not in (None, lender.callback_url):
        yield f"callback_url={asked.callback_url}"
