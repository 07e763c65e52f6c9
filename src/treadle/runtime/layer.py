"""The runner layer: Treadle and its two libraries, put behind an image's own packages on its path.

Each environment also holds a second one, RUNNER_HOME, of the same interpreter with the layer alone: the runner starts
from that, outside of every sandbox, where no package of the image may run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import treadle
from treadle.model.errors import BuildFailed
from treadle.runtime.python import Python, running_python
from treadle.runtime.seal import opened, remove, seal

LIBRARIES = ("msgspec", "websockets")
CONSTRAINTS = "msgspec>=0.20\nwebsockets>=15\n"
RUNNER = "runner-"  # prefix of layers
DRAFT = ".new-"  # prefix of a layer that is being made
RUNNER_HOME = "runner"
_PTH = "_treadle.pth"

Install = Callable[[list[str], Path], None]  # requirements, target folder


def layer_name(python: Python) -> str:
    """Changes with Treadle's own source and the libraries' versions: `runner-3.11-<hash>`."""
    digest = hashlib.sha256(sysconfig.get_platform().encode())
    for library in LIBRARIES:
        digest.update(f"{library}=={importlib.metadata.version(library)}\n".encode())
    for path in _sources():
        digest.update(f"{path}\0".encode() + path.read_bytes())
    return f"{RUNNER}{python.minor}-{digest.hexdigest()[:16]}"


def _package() -> Path:
    return Path(str(treadle.__file__)).parent


def _sources() -> list[Path]:
    return sorted(path for path in _package().rglob("*") if path.is_file() and "__pycache__" not in path.parts)


@contextlib.contextmanager
def drafted(target: Path, python: Python, install: Install) -> Iterator[Path]:
    """Make a layer: yields the draft once it is filled, and puts it in its place, sealed, when the body ends well.

    `install` is asked where our own copies of the libraries do not fit the interpreter.
    """
    draft = target.with_name(DRAFT + target.name)  # under the layer's lock: ours, or what a killed build left
    remove(draft)
    draft.mkdir()
    try:
        if python.minor == running_python().minor:
            for library in LIBRARIES:
                _copy_library(library, draft)
        else:
            install([f"{name}=={importlib.metadata.version(name)}" for name in LIBRARIES], draft)
        shutil.copytree(_package(), draft / "treadle")
        yield draft
        seal(draft)
        draft.chmod(0o755)  # a folder that its owner may not write into cannot be renamed
        draft.replace(target)
        target.chmod(0o555)
    finally:
        remove(draft)


def _copy_library(name: str, target: Path) -> None:
    """Our installed copy with its bytecode. No hardlinks: what containers share must not be what this agent runs."""
    distribution = importlib.metadata.distribution(name)
    tops = {path.parts[0] for path in distribution.files or [] if ".." not in path.parts and not path.is_absolute()}
    if not tops:
        raise BuildFailed(f"The installed {name} does not list its files.", f"Reinstall it: uv pip install {name}.")
    for top in sorted(tops):
        source = Path(str(distribution.locate_file(top)))
        if source.is_dir():
            shutil.copytree(source, target / top)
        else:
            shutil.copy2(source, target / top)


def runner_home(environment: Path) -> Path:
    return environment / RUNNER_HOME


def is_attached(environment: Path, python: Python, layer: Path) -> bool:
    """Whether the environment and its runner find this layer."""
    paths = [_path_file(home, python) for home in (environment, runner_home(environment))]
    return all(path.exists() and path.read_text() == _path_text(layer) for path in paths)


def attach(environment: Path, python: Python, layer: Path) -> None:
    """Put the layer on the environment's path, after its own packages, and the aliases after that."""
    home = runner_home(environment)
    if not home.exists():
        with opened(environment):
            _make_home(home, python)
    for one in (environment, home):
        path = _path_file(one, python)
        draft = path.with_name(f"_treadle-{uuid4().hex}.new")
        with opened(path.parent):
            draft.write_text(_path_text(layer))
            draft.chmod(0o444)
            draft.replace(path)


def _make_home(home: Path, python: Python) -> None:
    """An environment (PEP 405) in which there is nothing; made aside, for half of one would not be made again."""
    draft = home.with_name(f"{home.name}-{uuid4().hex}.new")
    program = Path(python.path).resolve()
    try:
        (draft / "bin").mkdir(parents=True)
        _path_file(draft, python).parent.mkdir(parents=True)
        (draft / "bin" / "python").symlink_to(program)
        settings = f"home = {program.parent}\ninclude-system-site-packages = false\n"
        (draft / "pyvenv.cfg").write_text(settings)
        seal(draft)
        draft.chmod(0o755)  # a folder that its owner may not write into cannot be renamed
        draft.replace(home)
        home.chmod(0o555)
    finally:
        remove(draft)


def attached_layers(environment: Path) -> list[Path]:
    """The layer that the environment finds, if any."""
    files = environment.glob(f"lib/python*/site-packages/{_PTH}")
    return [Path(file.read_text().partition("\n")[0]) for file in files]


def _path_file(environment: Path, python: Python) -> Path:
    return environment / "lib" / f"python{python.minor}" / "site-packages" / _PTH


def _path_text(layer: Path) -> str:
    return f"{layer}\n{layer / 'treadle' / 'aliases'}\n"
