"""The page of benchmarks explains every measure, has a place for figures, and its command works."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pages import DOCS, ROOT, rows

PAGE = DOCS / "benchmarks.md"


def _part(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name}")


@pytest.fixture(autouse=True)
def _reach_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_every_measure_is_explained() -> None:
    """The table of measures has each name that ONLY= takes, and no other."""
    bench = _part("bench")
    measures = bench.measures(bench.Places(ROOT, ROOT), quick=True)
    assert rows(PAGE, "## What is measured").keys() - {"ONLY="} == measures.keys()


def test_a_median_at_the_bound_is_met() -> None:
    """A figure that must reach a bound is met by the bound itself and missed beyond it."""
    figures = _part("figures")
    assert figures.Reach("≥", 10).met(10) and not figures.Reach("≥", 10).met(9.9)
    assert figures.Reach("≤", 10).met(10) and not figures.Reach("≤", 10).met(10.1)


def test_runs_are_gathered_by_figure() -> None:
    """Figures of the same name become one row with its runs in order, and the median decides."""
    figures = _part("figures")
    drains = [[figures.Figure("drain", value, "tasks/s")] for value in (9_000.0, 11_000.0, 10_500.0)]
    (row,) = figures.gather(drains)
    assert row.runs == [9_000, 11_000, 10_500]
    assert (row.median, row.verdict) == (10_500, "yes")


def test_figures_are_written_between_the_markers() -> None:
    """The page has a place for results and one for peers; filling one leaves the rest of the page as it is."""
    report, page = _part("report"), PAGE.read_text()
    for name in ("results", "peers"):
        filled = report.fill(page, name, "| new |")
        assert "| new |" in filled
        assert filled.startswith(page.partition(f"<!-- {name} begin -->")[0])
        assert filled.endswith(page.partition(f"<!-- {name} end -->")[2])


@pytest.mark.e2e
def test_the_command_measures_and_leaves_nothing(tmp_path: Path) -> None:
    """A short measurement writes its figures and removes its folders."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", "--runs", "1", "--only", "crash"]
    done = subprocess.run(
        [*command, "--json", str(file), "--folder", str(tmp_path)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(file.read_text())
    assert said["notes"] == []
    assert next(figure["name"] for figure in said["runs"][0]) == "crash to the retry's first line, p50"
    assert "crash to the retry's first line, p50" in done.stdout
    assert list(tmp_path.iterdir()) == [file]
