"""Crash tests: real processes, real load, and everything that can go wrong going wrong: `make crash`.

    make crash                          for ten minutes, rounds of all kinds
    make crash SECONDS=3600 SEED=7      longer; the seed makes the sequence of faults the same
    make crash SEED=7 ROUND=12          one round again
    make crash ROUNDS=kills,power       rounds of these kinds alone
    make crash COUNT=3                  so many rounds
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from . import disk
from .rounds import Round

KINDS = ("kills", "links", "kills", "power", "kills", "full", "kills", "frozen", "kills", "parted")
DEEDS = 250  # a round


class Campaign:
    """Rounds one after the other, each in a folder of its own, which is kept if something did not hold."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._began = time.monotonic()
        self._told = 0.0
        self.kills: Counter[str] = Counter()
        self.facts: Counter[str] = Counter()
        self.rounds: Counter[str] = Counter()
        self.failed: list[str] = []
        kinds = asked.rounds or KINDS
        self._without_disk = disk.trouble() if "full" in kinds else ""
        if self._without_disk:
            print(f"rounds with a full disk are skipped: {self._without_disk}")
        self._kinds = [kind for kind in kinds if kind != "full" or not self._without_disk]
        if not self._kinds:
            sys.exit("There is no round to run.")

    def run(self) -> None:
        numbers = [self._asked.round] if self._asked.round is not None else range(self._asked.first, 1 << 30)
        for number in numbers:
            self._round(number)
            if self.failed or self._is_over():
                return

    def _is_over(self) -> bool:
        done = (self._asked.kills, sum(self.kills.values())), (self._asked.count, sum(self.rounds.values()))
        enough = any(limit and reached >= limit for limit, reached in done)
        return enough or time.monotonic() - self._began > self._asked.seconds

    def _round(self, number: int) -> None:
        kind = self._kinds[number % len(self._kinds)]
        folder = Path(tempfile.mkdtemp(prefix=f"treadle-crash-{number}-", dir=self._asked.folder))
        began = time.monotonic()
        chance = Random(f"{self._asked.seed}/{number}")
        this = Round(kind, chance, folder, self._asked.deeds, lambda what: self._tell(number, kind, what))
        broken = this.run()
        self.kills += this.kills
        self.facts += this.facts
        self.rounds[kind] += 1
        print(f"round {number} {kind}: {time.monotonic() - began:.0f} s, {_said(this.kills)}; {_said(this.facts)}", flush=True)
        if broken:
            self._keep(number, folder, broken)
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, number: int, folder: Path, broken: list[str]) -> None:
        (folder / "verdict").write_text("\n".join(broken) + "\n")
        self.failed = broken
        print("\n".join(f"  BROKEN: {line}" for line in broken))
        print(f"Evidence: {folder} (verdict, server.log, kept/treadle.db, shared/ledger, accepted)")
        more = f" ROUNDS={','.join(self._asked.rounds)}" if self._asked.rounds else ""
        more += f" DEEDS={self._asked.deeds}" if self._asked.deeds != DEEDS else ""
        print(f"Run it again: make crash SEED={self._asked.seed} ROUND={number}{more}", flush=True)

    def _tell(self, number: int, kind: str, what: str) -> None:
        """Where it is: all the time on a terminal, every ten seconds elsewhere."""
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if now - self._told > (0.2 if terminal else 10):
            self._told = now
            start, end = ("\r", "\x1b[K") if terminal else ("", "\n")
            print(f"{start}  {now - self._began:.0f} s, round {number} {kind}: {what}", end=end, file=sys.stderr, flush=True)

    def report(self) -> None:
        seconds, total = time.monotonic() - self._began, sum(self.kills.values())
        print(f"{sum(self.rounds.values())} rounds ({_said(self.rounds)}) in {seconds:.0f} s: {total} kills, {total / seconds:.1f} a second")
        print(f"killed: {_said(self.kills)}\n{_said(self.facts)}")
        print("broken promises: " + (str(len(self.failed)) if self.failed else "none"))
        if self._asked.json:
            said = {
                "seed": self._asked.seed, "seconds": seconds, "rounds": self.rounds, "kills": self.kills,
                "facts": self.facts, "broken": self.failed,
            }  # fmt: skip
            Path(self._asked.json).write_text(json.dumps(said, indent=1) + "\n")


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _kinds(named: str) -> list[str]:
    kinds = [kind for kind in named.split(",") if kind]
    if unknown := set(kinds) - set(KINDS):
        raise argparse.ArgumentTypeError(f"no kinds of rounds: {', '.join(sorted(unknown))}")
    return kinds


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)), help="of the sequence of faults")
    parser.add_argument("--seconds", type=float, default=600.0, help="begin no more rounds after that time")
    parser.add_argument("--kills", type=int, default=0, help="nor after so many kills")
    parser.add_argument("--count", type=int, default=0, help="nor after so many rounds")
    parser.add_argument("--rounds", type=_kinds, help=f"kinds of rounds, in turn; of {', '.join(sorted(set(KINDS)))}")
    parser.add_argument("--round", type=int, help="this one alone")
    parser.add_argument("--first", type=int, default=0, help="the number of the first round")
    parser.add_argument("--deeds", type=int, default=DEEDS, help="faults in a round")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where rounds have their folders")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args(argv)


def main() -> int:
    asked = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a round clears away what it has started
    print(f"seed {asked.seed}", flush=True)
    campaign = Campaign(asked)
    campaign.run()
    campaign.report()
    return 1 if campaign.failed else 0


if __name__ == "__main__":
    sys.exit(main())
