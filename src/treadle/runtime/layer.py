"""The runner layer: Treadle and its two libraries, put behind an image's own packages on its path."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

import treadle
from treadle.model.errors import BuildFailed
from treadle.runtime.python import Python, running_python

LIBRARIES = ("msgspec", "websockets")
CONSTRAINTS = "msgspec>=0.20\nwebsockets>=15\n"

Install = Callable[[list[str], Path], None]  # requirements, target folder


def layer_name(python: Python) -> str:
    """Changes with Treadle's own source and the libraries' versions: `runner-3.11-<hash>`."""
    digest = hashlib.sha256(sysconfig.get_platform().encode())
    for library in LIBRARIES:
        digest.update(f"{library}=={importlib.metadata.version(library)}\n".encode())
    for path in _sources():
        digest.update(f"{path}\0".encode() + path.read_bytes())
    return f"runner-{python.minor}-{digest.hexdigest()[:16]}"


def _package() -> Path:
    return Path(str(treadle.__file__)).parent


def _sources() -> list[Path]:
    return sorted(path for path in _package().rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def build_layer(target: Path, python: Python, install: Install) -> None:
    """Fill `target`, whole or not at all. `install` is asked where our own copies do not fit the interpreter."""
    draft = Path(mkdtemp(prefix=".new-", dir=target.parent))
    try:
        draft.chmod(0o755)
        if python.minor == running_python().minor:
            for library in LIBRARIES:
                _link_library(library, draft)
        else:
            install([f"{name}=={importlib.metadata.version(name)}" for name in LIBRARIES], draft)
        shutil.copytree(_package(), draft / "treadle")
        draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _link_library(name: str, target: Path) -> None:
    """Our installed copy with its bytecode, hardlinked where the file system allows it."""
    distribution = importlib.metadata.distribution(name)
    tops = {path.parts[0] for path in distribution.files or [] if ".." not in path.parts and not path.is_absolute()}
    if not tops:
        raise BuildFailed(f"The installed {name} does not list its files.", f"Reinstall it: uv pip install {name}.")
    for top in sorted(tops):
        source = Path(str(distribution.locate_file(top)))
        if source.is_dir():
            shutil.copytree(source, target / top, copy_function=_link)
        else:
            _link(str(source), str(target / top))


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def attach(environment: Path, python: Python, layer: Path) -> None:
    """Put the layer on the environment's path, after its own packages, and the aliases after that."""
    path = environment / "lib" / f"python{python.minor}" / "site-packages" / "_treadle.pth"
    text = f"{layer}\n{layer / 'treadle' / 'aliases'}\n"
    if not path.exists() or path.read_text() != text:
        draft = path.with_name(f"_treadle-{uuid4().hex}.new")  # its own: several may attach at once
        draft.write_text(text)
        draft.replace(path)
