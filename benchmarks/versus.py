"""Measures peers and Treadle side by side with the peers' harness, which is used as it is: copied, one peer added."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.marks import MeasureFailed

HERE = Path(__file__).parent
ROOT = HERE.parent
VENVS = Path(os.environ.get("VENVS", ROOT / ".venv" / "peers"))
ENTRY = """
PEERS["treadle"] = dict(servers=[], n=10000, nbulk=20000, workers=[["{py}", "treadle_gate.py"]])
"""
OWN = ("Treadle", "workers=2, results", "kept / kept")
KEYS = ("A", "bulk", "B", "C")
SECONDS = 600  # one peer, once


def find_harness() -> Path:
    """The folder of the harness.

    Raises:
        MeasureFailed: it is not there, or something that it needs is not.
    """
    folder = Path(os.environ.get("PEERS_HARNESS", ROOT.parent / "shared" / "peers"))
    if not (folder / "bench.py").is_file():
        raise MeasureFailed(f"The peers' harness is not in {folder}: say where it is with PEERS_HARNESS=FOLDER.")
    if not shutil.which("redis-server"):
        raise MeasureFailed("Peers need redis-server: apt-get install redis-server.")
    return folder


def measure_peers(peers: Sequence[str], folder: Path, runs: int, *, quick: bool) -> dict[str, Any]:
    """Every peer and Treadle, in turn, so many times. `NAME[:VARIANT][+always]`, the last for Redis with fsync."""
    work = _overlay(find_harness(), folder / "peers")
    environ = os.environ | {
        "ROOT": str(work / "work"), "VENVS": str(VENVS), "NO_NATS": "1", "BENCH_LOCK": str(work / "bench.lock"),
        "BENCH_TICK": f"/dev/shm/{folder.name}-tick", "BENCH_STAMP": f"/dev/shm/{folder.name}-stamp",  # noqa: S108
    }  # fmt: skip
    for name in ("work/logs", "work/data", "results"):
        (work / name).mkdir(parents=True, exist_ok=True)
    _environments(work, peers, environ)
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        for number in range(runs):
            for peer in ("treadle", *peers):
                print(f"peers, run {number + 1} of {runs}: {peer}", file=sys.stderr, flush=True)
                found.setdefault(peer, []).append(_measure(work, peer, environ, quick=quick))
    finally:
        subprocess.run([work / "servers.sh", "stop", "all"], env=environ, cwd=work, check=False, capture_output=True)
        for left in Path("/dev/shm").glob(f"{folder.name}-*_*"):  # noqa: S108
            left.unlink()
        for name in ("BENCH_TICK", "BENCH_STAMP"):
            Path(environ[name]).unlink(missing_ok=True)
    meta = runpy.run_path(str(work / "meta.py"))["META"]
    rows = [_row(peer, results, meta) for peer, results in found.items()]
    python, redis = [str(VENVS / "treadle" / "bin" / "python"), "--version"], ["redis-server", "--version"]
    return {"python": _said(python).split()[-1], "redis": _said(redis).split()[2].removeprefix("v="), "rows": rows}


def _overlay(harness: Path, work: Path) -> Path:
    """A copy of the harness that knows Treadle too."""
    shutil.copytree(harness, work, ignore=shutil.ignore_patterns("__pycache__", "work", "results"))
    subprocess.run(["chmod", "-R", "u+w", work], check=True)  # the original may be read-only
    for path in (HERE / "peers").glob("*.py"):
        shutil.copy(path, work / "peers")
    registry = work / "registry.py"
    registry.write_text(registry.read_text() + ENTRY)
    return work


def _environments(work: Path, peers: Sequence[str], environ: dict[str, str]) -> None:
    """A virtual environment each, all of the Python that PY names, or ours."""
    uv = str(Path(sys.executable).with_name("uv"))
    python = environ.get("PY", sys.executable)
    path = f"{Path(uv).parent}{os.pathsep}{environ['PATH']}"
    names = sorted({peer.partition("+")[0].partition(":")[0] for peer in peers})
    own = VENVS / "treadle"
    commands = [[str(work / "setup_venvs.sh"), *names]]
    if not (own / "bin" / "python").exists():
        commands.append([uv, "venv", "--quiet", "--python", python, str(own)])
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(own / "bin" / "python")]
    commands.append([*install, "--reinstall-package", "treadle", str(ROOT)])
    for command in commands:
        ran = subprocess.run(command, env=environ | {"PY": python, "PATH": path}, cwd=work, check=False)
        if ran.returncode:
            raise MeasureFailed(f"`{' '.join(command[:4])} …` failed: see above")


def _measure(work: Path, peer: str, environ: dict[str, str], *, quick: bool) -> dict[str, Any]:
    """One run of the harness's own driver for one peer; its results file."""
    name, _, redis = peer.partition("+")
    # E and F ask for the worker's processes: Treadle's are its server's, which benchmarks.bench measures.
    command = ["./shield.sh", sys.executable, "bench.py", name, "--runs", "1"]
    command += ["--only", "ABCD" if name == "treadle" else "ABCDEF"]
    command += ["--n", "2000", "--lat", "50"] if quick else []
    command += ["--redis", redis, "--tag", redis] if redis else []
    log = work / "work" / "logs" / "driver.log"
    with log.open("ab") as file:
        done = subprocess.run(command, env=environ, cwd=work, stdout=file, stderr=file, timeout=SECONDS, check=False)
    if name == "treadle":
        command = [str(VENVS / "treadle" / "bin" / "treadle"), "down", "--data", f"{environ['ROOT']}/data/treadle"]
        subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        logs = [log, log.with_name(f"worker_{name.replace(':', '-')}.log")]
        told = [path.read_text(errors="replace")[-1500:] for path in logs if path.exists()]
        raise MeasureFailed(f"{peer} failed:\n" + "\n".join(told))
    said: dict[str, Any] = json.loads((work / "results" / f"{_file(peer)}.json").read_text())
    return said


def _file(peer: str) -> str:
    return peer.replace(":", "-").replace("+", "-")


def _row(peer: str, results: list[dict[str, Any]], meta: dict[str, tuple[str, str, str]]) -> dict[str, Any]:
    """What all runs found for a peer; `durable` is what became of acknowledged tasks in the harness's own trial."""
    name, _, redis = peer.partition("+")
    _, settings, durable = OWN if name == "treadle" else meta.get(name.replace(":", "-"), ("", "", ""))
    if redis == "always":
        settings, durable = f"{settings}; Redis appendfsync always", "kept / kept"
    runs = [run for result in results for run in result["runs"]]
    row: dict[str, Any] = {"peer": peer, "version": _version(name), "settings": settings, "durable": durable}
    row |= {key: [run[key] for run in runs if key in run] for key in KEYS}
    for key in ("D", "R"):
        row[key] = [[result[key]["p50"], result[key]["p99"]] for result in results if key in result]
    row["F"] = [result["med_F"] for result in results if "med_F" in result]
    row["E"] = [result["E"]["worker_rss_pss"][1] for result in results if "E" in result]
    row["incomplete"] = [key for run in runs for key in ("B_incomplete", "C_incomplete", "dups") if key in run]
    return row


def _version(name: str) -> str:
    package = name.partition(":")[0]
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return _said([str(VENVS / package / "bin" / "python"), "-c", code])


def _said(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
