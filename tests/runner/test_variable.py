"""The environment variable that names the task."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

SETTING = """
import os
from pathlib import Path
from treadle.runner.variable import Variable

variable = Variable("TASK_ID")
sizes = []
for part in range(2):
    for number in range(100_000):
        variable.set(f"01a21636-6919-7b1a-a293-{part}{number:011}")
    sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024)
assert os.environ["TASK_ID"] == os.getenv("TASK_ID") == f"01a21636-6919-7b1a-a293-{part}{number:011}"
os.environ["TASK_ID"] = "theirs"
variable.set("ours")
os.execvp("sh", ["sh", "-c", f'echo "$TASK_ID" {sizes[1] - sizes[0]}'])
"""


def test_setting_it_takes_no_memory_however_often() -> None:
    """It is seen by this process and by those that it starts, also after user code has set it."""
    done = subprocess.run(
        [sys.executable, "-c", SETTING], env=dict(os.environ), capture_output=True, text=True, check=True, timeout=60
    )
    value, kib = done.stdout.split()
    assert value == "ours"
    assert int(kib) < 2_000
