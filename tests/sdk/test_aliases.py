"""Apps written for Beam import `beam` or `beta9`: both stand-ins hand out Treadle's names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import treadle
from treadle.sdk.load import ALIASES

pytestmark = pytest.mark.process


def _run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    script = f"import sys; sys.path[:0] = {[str(one) for one in path]!r}; sys.path.append({str(ALIASES)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["beam", "beta9"])
def test_every_name_is_treadles(module: str) -> None:
    """The same objects under both names, and Beam's enums as strings."""
    names = ", ".join(name for name in treadle.__all__ if name != "__version__")
    done = _run(
        f"import treadle\nfrom {module} import {names}, PythonVersion, GpuType\n"
        f"import {module}\nassert all(getattr({module}, n) is getattr(treadle, n) for n in {names.split(', ')!r})\n"
        "assert PythonVersion.Python311 == 'python3.11' and GpuType.A10G == 'A10G'\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_star_import_works() -> None:
    """`from beam import *` brings the decorator."""
    assert _run("from beam import *\ntask_queue").returncode == 0


def test_a_name_that_is_missing_is_an_import_error() -> None:
    """What Treadle does not have yet is not there in silence."""
    done = _run("from beam import CloudBucket")
    assert "ImportError" in done.stderr
    assert "Treadle does not have Beam's 'CloudBucket' yet" in _run("import beam; beam.CloudBucket").stderr


def test_a_real_beam_goes_first(tmp_path: Path) -> None:
    """An installed package of that name is never shadowed."""
    (tmp_path / "beam.py").write_text("REAL = True")
    assert _run("import beam; assert beam.REAL", tmp_path).returncode == 0
