"""Nothing that users give runs outside of the sandbox: not by a variable, not by a package, in no process of ours.

Python runs code as soon as it starts: `sitecustomize` on PYTHONPATH, and lines of `.pth` files beside packages.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from textwrap import dedent

import pytest
from place import Place

pytestmark = pytest.mark.e2e

# What both hooks do: take the server's credentials along, into a file that the container can read.
HOOK = """
    import os, pathlib, sys
    found = []
    for name in ("credentials.toml", "treadle.db"):
        try:
            found.append(str(len(pathlib.Path({data!r}, name).read_bytes())))
        except OSError as error:
            found.append(type(error).__name__)
    with open(os.path.join({shared!r}, "{name}"), "a") as file:
        file.write(" ".join(found) + "\\n")
"""
HANDLER = """
    import os, sys
    from pathlib import Path
    from treadle import Image, task_queue

    @task_queue(retries=0, keep_warm_seconds=5, {options})
    def handler():
        six = sys.modules.get("sitecustomize") or sys.modules.get("hook_of_a_package")
        return {{"hook": six.__name__ if six else "", "executable": sys.executable, "prefix": sys.prefix}}
"""


def hook(place: Place, name: str) -> str:
    return dedent(HOOK.format(data=str(place.data), shared=str(place.shared), name=name))


def seen(place: Place, name: str) -> set[str]:
    """What the hook could read, each time that it ran."""
    return set((place.shared / name).read_text().splitlines())


def test_a_variable_runs_nothing_outside(shut: Place) -> None:
    """PYTHONPATH is obeyed, by the container's own interpreter."""
    source = HANDLER.format(options='env={"PYTHONPATH": "."}')
    shut.app(hook(shut, "variable"), "sitecustomize.py")
    shut.deploy(source, name="variable")
    task = shut.ended(shut.submit("variable"))
    assert task["result"]["hook"] == "sitecustomize", task
    assert seen(shut, "variable") == {"FileNotFoundError FileNotFoundError"}


def test_a_package_runs_nothing_outside(shut: Place, tmp_path: Path) -> None:
    """Its `.pth` file is obeyed in the container, and by no process that forks or looks after containers."""
    wheel = wheel_with_hook(tmp_path, hook(shut, "package"))
    source = HANDLER.format(options=f'image=Image(python_packages=["hooked @ {wheel.as_uri()}"])')
    shut.deploy(source, name="package")
    task = shut.ended(shut.submit("package"))
    assert task["result"]["hook"] == "hook_of_a_package", task
    assert task["result"]["executable"] == f"{task['result']['prefix']}/bin/python"
    assert seen(shut, "package") == {"FileNotFoundError FileNotFoundError"}


def wheel_with_hook(folder: Path, hook: str) -> Path:
    """A package that runs nothing when it is installed (PyPA's binary distribution format)."""
    wheel = folder / "hooked-1.0-py3-none-any.whl"
    about = "hooked-1.0.dist-info"
    files = {
        "hook_of_a_package.py": hook,
        "hooked.pth": "import hook_of_a_package\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: hooked\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel
