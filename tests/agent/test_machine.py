"""What a machine says that it has: its memory, and its GPUs as a driver tells of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from treadle.agent import machine
from treadle.model.errors import InvalidOption

DRIVER = """
#include <string.h>
static const char *names[] = {"NVIDIA A10G", "Tesla T4"}, *uuids[] = {"GPU-aaaa", "GPU-bbbb"};
int nvmlInitWithFlags(unsigned flags) { return INIT; }
int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "the driver is unwell"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetName(void *handle, char *name, unsigned size) { strcpy(name, names[(long)handle - 1]); return 0; }
int nvmlDeviceGetMinorNumber(void *handle, unsigned *minor) { *minor = 7; return (long)handle == 1 ? 0 : 3; }
int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned size) { strcpy(uuid, uuids[(long)handle - 1]); return 0; }
"""
ASK = """
import json, os
from treadle.agent import machine
found = machine.gpus(os.environ)
print(json.dumps([[[gpu.uuid, gpu.name, found.files.get(gpu.uuid)] for gpu in found.gpus], found.trouble]))
"""


def ask(folder: Path, init: int) -> list[object]:
    """What is found where the driver's library is one of our own making."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to make a driver's library with")
    (folder / "driver.c").write_text(DRIVER.replace("INIT", str(init)))
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "driver.c"], check=True, timeout=60)
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    found: list[object] = json.loads(done.stdout)
    return found


@pytest.mark.process
def test_devices_are_those_that_the_driver_tells_of(tmp_path: Path) -> None:
    """By UUID, name and file (whose number is not that of its order), in its order; one may have no file."""
    found = ask(tmp_path, init=0)
    assert found == [[["GPU-aaaa", "NVIDIA A10G", "/dev/nvidia7"], ["GPU-bbbb", "Tesla T4", None]], ""]


@pytest.mark.process
def test_a_driver_that_does_not_work_is_no_driver(tmp_path: Path) -> None:
    """The machine has no GPUs then, and it is known why."""
    assert ask(tmp_path, init=9) == [[], "Driver Not Loaded"]


def test_without_a_driver_there_are_none() -> None:
    """Which is no trouble at all."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a driver")
    assert machine.gpus({}) == machine.Gpus()


def test_fake_devices_have_the_same_names_at_every_start() -> None:
    """So that what was given out before still means the same device."""
    fake = {"TREADLE_FAKE_GPUS": "A10G, A10G,T4,"}
    first, second = machine.gpus(fake).gpus, machine.gpus(fake).gpus
    assert first == second
    assert [gpu.name for gpu in first] == ["A10G", "A10G", "T4"]
    assert len({gpu.uuid for gpu in first}) == 3


def test_memory_is_what_the_machine_has_at_most() -> None:
    """Less what the system, the server and the runners need; less, too, where a cgroup holds this process to less."""
    total = psutil.virtual_memory().total // 2**20
    assert 32 <= machine.memory({}) <= total - 256


@pytest.mark.parametrize(("given", "mib"), [("512", 512), ("2gi", 2048), ("1g", 1000)])
def test_memory_may_be_set(given: str, mib: int) -> None:
    """As a number of MiB, or with a unit."""
    assert machine.memory({"TREADLE_MEMORY": given}) == mib


@pytest.mark.parametrize("given", ["much", "-5", "1"])
def test_memory_that_is_none_is_refused(given: str) -> None:
    """By the name of the variable, with what is allowed."""
    with pytest.raises(InvalidOption, match=f"TREADLE_MEMORY='{given}' is not allowed"):
        machine.memory({"TREADLE_MEMORY": given})


@pytest.mark.parametrize(("given", "seconds"), [("", 60.0), ("1", 1.0), ("2.5", 2.5), ("86400", 86400.0)])
def test_how_long_containers_go_on_alone_can_be_set(given: str, seconds: float) -> None:
    """TREADLE_ORPHAN_GRACE is seconds; a minute without it."""
    assert machine.orphan_grace({"TREADLE_ORPHAN_GRACE": given}) == seconds


@pytest.mark.parametrize("given", ["0", "-1", "86401", "nan", "soon"])
def test_a_strange_time_to_go_on_alone_is_refused(given: str) -> None:
    """The refusal names the variable, the value and what is allowed."""
    with pytest.raises(InvalidOption, match=f"TREADLE_ORPHAN_GRACE='{given}' is not allowed"):
        machine.orphan_grace({"TREADLE_ORPHAN_GRACE": given})
