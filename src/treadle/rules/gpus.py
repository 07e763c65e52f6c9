"""Which devices fit the name of a GPU: by words, so that an A10G is not an A10."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from treadle.model.wire import Gpu

ANY = "ANY"
WORD = re.compile(r"[A-Z0-9]+")
SIZE = re.compile(r"(\d+)GI?B")


def matches(asked: str, name: str) -> bool:
    """Whether a device with this name (as the driver tells it) is what is asked for.

    Every word asked for must be a word of the name: "H100" fits "NVIDIA H100 80GB HBM3", "A10" does not fit "NVIDIA
    A10G". "RTX4090" fits "RTX 4090", and "A100-40" fits "A100-SXM4-40GB". "any" fits all. Case does not matter.
    """
    words = WORD.findall(asked.upper())
    return words == [ANY] or (bool(words) and _words(name).issuperset(words))


def _words(name: str) -> set[str]:
    words = WORD.findall(name.upper())
    joined = (left + right for left, right in pairwise(words))
    sizes = (size[1] for word in words if (size := SIZE.fullmatch(word)))
    return {*words, *joined, *sizes}


def pick(asked: str, count: int, free: Iterable[Gpu]) -> tuple[str, ...]:
    """UUIDs of `count` devices that fit, of one model if possible; () when there are not as many."""
    fitting = [gpu for gpu in free if matches(asked, gpu.name)]
    models: dict[str, list[str]] = {}
    for gpu in fitting:
        models.setdefault(gpu.name, []).append(gpu.uuid)
    enough = min((uuids for uuids in models.values() if len(uuids) >= count), key=len, default=None)
    chosen = enough or [gpu.uuid for gpu in fitting]
    return tuple(chosen[:count]) if len(chosen) >= count else ()
