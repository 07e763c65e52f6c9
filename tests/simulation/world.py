"""The seeded world: users, machines and mishaps, each step drawn at random, around the real engine on a real store.

Nothing happens by itself: asking a verb, running the batch, delivering what it asked for, and each message of each
link are steps of their own, so that they meet in every order. To add something that happens, write a method in `users`,
`mishaps` or `keeping` and list it in ACTIONS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from treadle.engine.switch import Which
from treadle.model.wire import Gpu

from .keeping import Keeping
from .machines import Agent


class World(Keeping):
    """One run of one seed: steps, each one random thing, and then an end that everything comes to without mishaps."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self.trace: list[str] = []
        for n in range(self.random.randint(1, 2)):
            self._deploy(f"queue-{n}")
        self._kind = False

    def live(self, steps: Iterable[int], script: Mapping[int, str] | None = None) -> None:
        """The whole run. A script says what happens in its steps; in others it is drawn."""
        for number in steps:
            self.step(number, (script or {}).get(number))
        self.settle()

    def step(self, number: int, action: str | None = None) -> None:
        """One random thing. Chance hangs on the seed, this number and the action: to leave out others changes no dice."""
        self.random.seed(f"{self.seed}/{number}")
        action = action or self.random.choices(_METHODS, _WEIGHTS)[0]
        self.trace.append(f"{number}:{action}")
        self.random.seed(f"{self.seed}/{number}/{action}")
        getattr(self, action)()
        self.ledger.check_devices(self.runners())

    # the end

    def settle(self, rounds: int = 400) -> None:
        """With enough time, and at most a full disk now and then, everything comes to its end."""
        self._kind = True
        self.random.seed(f"{self.seed}/end")
        if self._draining:
            self.crash_server()
        everything = [Gpu(f"last-gpu-{n}", "T4") for n in range(3)]  # no `min_containers` hold all of it
        self.agents.append(Agent("last", 1024, everything, self._start_container))
        self.cancel()
        calm = 0
        for turn in range(rounds):
            self.store.broken = int(turn < 10 and self.random.random() < 0.3)
            if turn <= 10:
                self._start_all()
            self._round()
            calm = calm + 1 if self.ledger.is_over() and turn > 10 else 0
            if calm > 8 and all(name in self.links for name in self.engine.roster.live):  # longer than any keep_warm
                break
        self.ledger.check_over(self.engine, self.links, self.runners())

    def _start_all(self) -> None:
        """Those that were stopped, and those that rest from failed starts."""
        for deployment in self.deployments:
            if self.engine.catalog.deployment(deployment.id).deleted_at is None:
                self.ask(self.engine.switch.start, Which(self.workspace.id, deployment.id), self._switched)

    def _round(self) -> None:
        self._pass(1.0)
        self.tick()
        self.deliver()
        for client in self.clients():
            if client.wire is None:
                self._dial(client)
        self._rest()
        for runner in self.runners():
            for ref in list(runner.running):
                if ref in runner.running:
                    runner.finish(self._end_of(ref))
        self._rest()


# How often each thing happens, beside the others.
ACTIONS: dict[str, int] = {
    "flow": 150, "submit": 15, "run_batch": 10, "carry_out": 10, "read": 10, "hear": 10, "work": 20, "dial": 20,
    "pass_time": 25, "tick": 10, "cancel": 8, "redeploy": 1, "submit_twice": 1, "submit_batch": 5, "jump": 1, "hush": 1, "lose_link": 4,
    "kill_child": 3, "kill_runner": 2, "crash_agent": 1, "crash_machine": 1, "crash_server": 2, "shut_down": 1,
    "fill_disk": 2, "switch": 2, "warm_up": 2, "stop_container": 4, "lie": 5, "blink": 4, "lose_machine": 1, "freeze": 2, "rest": 2, "cancel_apart": 2,
    "save": 4, "print_line": 4, "deliver": 8, "forget": 3, "redeploy_in_vain": 1, "stay_full": 1,
}  # fmt: skip
_METHODS = list(ACTIONS)
_WEIGHTS = list(ACTIONS.values())
