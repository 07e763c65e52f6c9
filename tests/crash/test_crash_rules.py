"""A campaign that does nothing, or something else than was asked, is told from one that was survived."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from . import campaign
from .ground import Broken
from .rounds import APART, SLOW, Round
from .victims import LEAST, in_vain, plan


def test_deeds_that_hit_nobody_are_told() -> None:
    """Fewer than a fifth of a kind's deeds hit anything: the round counts as broken, whatever the others did."""
    tried = {"child": 50, "runner": 10, "zygote": 10, "template": 4}
    assert in_vain(tried, {"child": 40, "runner": 2, "zygote": 1}) == ["only 1 of 10 deeds hit anything: zygote"]
    assert in_vain({"child": 50}, {}) == ["only 0 of 50 deeds hit anything: child"]


@pytest.mark.parametrize("weights", [APART, SLOW])
@pytest.mark.parametrize("seed", range(20))
def test_many_deeds_are_of_every_kind(weights: dict[str, float], seed: int) -> None:
    """However rare a kind is, no seed leaves it out."""
    kinds = [deed.kind for deed in plan(Random(seed), weights, 60, 0.1)]
    assert len(kinds) == 60
    assert all(kinds.count(kind) >= LEAST for kind in weights)


def test_few_deeds_follow_their_weights() -> None:
    """A plan of one deed after the other is as a plan of many: the rare kind stays rare."""
    chance = Random(1)
    kinds = [plan(chance, SLOW, 1, 0.1)[0].kind for _ in range(1000)]
    assert 50 < kinds.count("runner") < 150


def test_an_unknown_kind_of_round_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """And not run as nothing."""
    with pytest.raises(SystemExit):
        campaign.parse(["--rounds", "kills,earthquake"])
    assert "no kinds of rounds: earthquake" in capsys.readouterr().err


def test_the_evidence_of_a_broken_round_outlives_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Database, log and what containers printed are copied before the data folder goes with the round."""
    this = Round("full", Random(1), tmp_path, 60, lambda _: None)
    data = this.ground.data
    files = ["treadle.db", "treadle.db-wal", "agent/containers/one/log"]

    def breaks() -> None:
        for name in files:
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).write_text(name)
        this._stack.callback(shutil.rmtree, data)
        raise Broken("something")

    monkeypatch.setattr(this, "_full", breaks)
    monkeypatch.setattr(this, "_verdict", list)
    assert this.run() == ["something"]
    assert not data.exists()
    assert [(tmp_path / "kept" / name).read_text() for name in files] == files
