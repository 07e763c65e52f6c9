"""The seeded world: users, machines and mishaps, each step drawn at random, around the real engine on a real store.

Nothing happens by itself: asking a verb, running the batch, delivering what it asked for, and each message of each
link are steps of their own, so that they meet in every order. To add a mishap, write a method and list it in ACTIONS.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.making import IMAGE, SOURCE
from treadle.engine.catalog import Deploy, NewDeployment
from treadle.engine.fleet import Drain, StopContainer
from treadle.engine.queue import CancelTasks, Report, Submit
from treadle.engine.switch import Which
from treadle.model.container import ContainerStatus
from treadle.model.deployment import Autoscaler, Deployment, QueueConfig
from treadle.model.wire import AttemptRef, ContainerSpec, Died, Finished, Gpu, Raised

from .machines import Agent, Runner, Wire
from .server import Server

MEMORY = [256, 512]  # MiB of a machine; a container takes 64 to 256
URL = "https://example.com/hook"


class World(Server):
    """One run of one seed: steps, each one random thing, and then an end that everything comes to without mishaps."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self.trace: list[str] = []
        self.deployments: list[Deployment] = []
        self.agents = [self._agent() for _ in range(self.random.randint(1, 2))]
        for n in range(self.random.randint(1, 2)):
            self._deploy(f"queue-{n}")
        self._kind = False

    # machines

    def _agent(self) -> Agent:
        name = f"agent-{self._next()}"
        gpus = [Gpu(f"{name}-gpu-{n}", "T4") for n in range(self.random.randint(0, 2))]
        return Agent(name, self.random.choice(MEMORY), gpus, self._start_container)

    def _start_container(self, spec: ContainerSpec) -> Runner | None:
        mishap = 1.0 if self._kind else self.random.random()
        if mishap < 0.05:
            return None
        return Runner(spec, self.now, self.ledger, loads=mishap > 0.1)

    def runners(self) -> list[Runner]:
        return [runner for agent in self.agents for runner in agent.runners() if runner.alive]

    def clients(self) -> list[Runner | Agent]:
        return [*self.agents, *self.runners()]

    def dial(self) -> None:
        """Somebody without a link opens one."""
        away = [client for client in self.clients() if client.wire is None]
        if away:
            self._dial(self.random.choice(away))

    def _dial(self, client: Runner | Agent) -> None:
        if isinstance(client, Runner):
            row = self.store.container(client.id)
            if row is None or row.status is ContainerStatus.STOPPED:
                client.end()  # its token opens nothing any more
                return
        wire = Wire(self._next(), client)
        client.connect(wire)
        self.serving.append(wire)

    def hear(self) -> None:
        """Somebody takes a message of the server."""
        eager = [client for client in self.clients() if client.wire is not None and client.wire.down]
        if eager:
            self.random.choice(eager).hear(self.now)

    def work(self) -> None:
        """Something happens to a child of a runner."""
        runners = self.runners()
        if not runners:
            return
        runner = self.random.choice(runners)
        if runner.loading and self.random.random() < 0.6:
            runner.load()
        elif runner.running:
            runner.finish(self._end_of(self.random.choice(runner.running)))

    def _end_of(self, ref: AttemptRef) -> Finished:
        how = 0.0 if self._kind else self.random.random()
        if how < 0.5:
            return Finished(ref, result=b"1", ran=self.random.choice([0.0001, 0.002, 0.5]))
        if how < 0.75:
            return Finished(ref, raised=Raised("ValueError", "no", "", retryable=how < 0.7, not_json=how < 0.53))
        if how < 0.95:
            return Finished(ref, died=Died(self.random.choice([-9, -11, 3]), oom_kills=self.random.randint(0, 1)))
        return Finished(ref, timed_out=True)

    # users

    def submit(self) -> None:
        deployment = self.random.choice(self.deployments)
        for _ in range(self.random.choice([1, 1, 1, 2, 5])):
            if not self._draining:
                self._submit(deployment)

    def _submit(self, deployment: Deployment) -> None:
        task_id = f"task-{self._next():06}"
        url = URL if self.random.random() < 0.5 else None

        def answered(answer: Any) -> None:
            if answer == task_id:
                self.ledger.accepted[task_id] = deployment.config

        self.ask(self.engine.queue.submit, Submit(task_id, deployment, b"{}", url), answered)

    def submit_twice(self) -> None:
        """A request that cannot be written, among others that can."""
        if self.ledger.accepted:
            known = self.random.choice(list(self.ledger.accepted))
            self.ask(self.engine.queue.submit, Submit(known, self.random.choice(self.deployments), b"{}"))
            self.submit()

    def cancel(self) -> None:
        ids = list(self.ledger.accepted)
        if ids:
            chosen = [self.random.choice(ids[-12:]) for _ in range(self.random.randint(1, 3))]
            self.ask(self.engine.queue.cancel, CancelTasks(self.workspace.id, chosen))

    def _deploy(self, name: str) -> None:
        gpus = self.random.choice([(), (), (), ("T4",)])
        config = QueueConfig(
            handler="app:handler",
            memory=self.random.choice([64, 128, 256]),
            gpus=gpus,
            gpu_count=len(gpus),
            workers=self.random.choice([1, 1, 2, 3]),
            retries=self.random.randint(0, 3),
            retry_delay=self.random.choice([0.0, 1.0, 4.0]),
            ttl=self.random.choice([0, 0, 20]),
            keep_warm_seconds=self.random.choice([0, 5]),
            max_pending_tasks=self.random.choice([4, 100]),
            callback_url=self.random.choice([None, URL]),
            autoscaler=Autoscaler(
                max_containers=self.random.choice([2, 4]),
                tasks_per_container=self.random.randint(1, 3),
                min_containers=self.random.choice([0, 0, 1]),
            ),
        )
        verb = Deploy(f"deployment-{self._next()}", self.workspace.id, name, config, SOURCE, IMAGE.id)

        def answered(answer: Any) -> None:
            if isinstance(answer, NewDeployment):
                self.deployments.append(answer.deployment)
                self.ask(self.engine.scaler.watch, answer.deployment)

        self.ask(self.engine.catalog.deploy, verb, answered)
        if self._kind:
            self.run_batch()
            self.carry_out()

    def redeploy(self) -> None:
        self._deploy(self.random.choice(self.deployments).name)

    def switch(self) -> None:
        """A deployment is stopped, started or deleted, perhaps for the second time."""
        verb = self.random.choice([self.engine.switch.stop, self.engine.switch.start, self.engine.switch.delete])
        self.ask(verb, Which(self.workspace.id, self.random.choice(self.deployments).id), self._switched)

    def _switched(self, answer: Any) -> None:
        if isinstance(answer, Deployment):
            self.deployments = [answer if d.id == answer.id else d for d in self.deployments]

    def stop_container(self) -> None:
        """Somebody ends a container, at once or with some time for what runs."""
        names = list(self.engine.roster.live)
        if names:
            grace = self.random.choice([0.0, 0.0, 1.0])
            self.ask(self.engine.fleet.end, StopContainer(self.workspace.id, self.random.choice(names), grace))

    def warm_up(self) -> None:
        self.ask(self.engine.scaler.warm, self.random.choice(self.deployments))

    # time

    def pass_time(self) -> None:
        self._pass(self.random.choice([0.0, 0.1, 0.5, 1.0, 2.0]))
        for _ in range(self.random.randint(0, 1)):
            self.tick()

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        for runner in self.runners():
            runner.tick(self.now)
        for agent in self.agents:
            agent.tick(self.now)

    def jump(self) -> None:
        """The clock is set, or the machine slept."""
        self.now += self.random.choice([-60.0, -5.0, 17.0, 90.0])

    def tick(self) -> None:
        """What the server does each second."""
        if self.engine.queue.due(self.now):
            self.ask(self.engine.queue.wake)
        self.ask(self.engine.queue.reap)
        self.ask(self.engine.fleet.sweep)
        self.ask(self.engine.switch.clear)
        self._scale()

    def hush(self) -> None:
        """Nothing is heard of anybody for so long that leases run out, while the server goes on."""
        for _ in range(6):
            self.now += 4.0
            self.ask(self.engine.fleet.sweep)
            self.ask(self.engine.queue.recall)
            self.run_batch()

    # mishaps

    def lose_link(self) -> None:
        linked = [client for client in self.clients() if client.wire is not None]
        if linked:
            client = self.random.choice(linked)
            wire = client.wire
            client.cut(self.now)
            if wire is not None and self.random.random() < 0.5:
                wire.up.clear()

    def kill_child(self) -> None:
        runners = self.runners()
        if runners:
            self.random.choice(runners).lose_idle_child()

    def kill_runner(self) -> None:
        runners = self.runners()
        if runners:
            self.random.choice(runners).end()

    def crash_agent(self) -> None:
        agent = self.random.choice(self.agents)
        agent.cut(self.now)
        agent.restart()

    def crash_machine(self) -> None:
        agent = self.random.choice(self.agents)
        for runner in agent.runners():
            runner.end()
        agent.cut(self.now)
        agent.restart()

    def shut_down(self) -> None:
        """The server drains, and is started again later or never."""
        if not self._draining:
            self._draining = True
            self.ask(self.engine.fleet.drain, Drain(self.random.choice([0.0, 1.0, 5.0])))

    def fill_disk(self) -> None:
        self.store.broken = self.random.randint(1, 2)

    def blink(self) -> None:
        """Some links break, and their owners are back before the server knows."""
        for client in self.clients():
            if client.wire is not None and self.random.random() < 0.5:
                client.cut(self.now)
                self._dial(client)
        for wire in self.random.sample(self.serving, len(self.serving)):
            for _ in range(len(wire.up) + 1):
                self._read(wire)

    def lose_machine(self) -> None:
        """A machine is gone for good, and with it all that would tell of it. Another one takes its place."""
        agent = self.random.choice(self.agents)
        for runner in agent.runners():
            runner.end()
        agent.cut(self.now)
        self.agents.remove(agent)
        self.agents.append(self._agent())

    def lie(self) -> None:
        """A report of an attempt that is not, or not there, or not any more."""
        wires = [wire for wire in self.serving if isinstance(wire.owner, Runner) and wire.greeted]
        running = [ref for runner in self.runners() for ref in runner.running]
        if wires and running:
            wire, ref = self.random.choice(wires), self.random.choice(running)
            if ref in wire.owner.running:
                ref = AttemptRef(ref.task_id, ref.attempt + self.random.choice([-1, 1]))
            self.ask(self.engine.queue.finish, Report(wire.owner.id, Finished(ref, result=b"0"), wire.number))

    def live(self, steps: Iterable[int]) -> None:
        """The whole run."""
        for number in steps:
            self.step(number)
        self.settle()

    def step(self, number: int) -> None:
        """One random thing. Chance hangs on the seed and this number alone: to leave out others changes no dice."""
        self.random.seed(f"{self.seed}/{number}")
        action = self.random.choices(_METHODS, _WEIGHTS)[0]
        self.trace.append(action)
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
        for client in self.clients():
            if client.wire is None:
                self._dial(client)
        self._rest()
        for runner in self.runners():
            for ref in list(runner.running):
                if ref in runner.running:
                    runner.finish(self._end_of(ref))
        self._rest()

    def _rest(self) -> None:
        """Everything that is under way arrives."""
        for _ in range(40):
            self._exchange()
            if not (self.pending or self.outgoing or self._messages()):
                self.ledger.check_agreed(self.links, self.runners())
                return
        raise AssertionError("the world does not come to rest: somebody talks for ever")

    def _exchange(self) -> None:
        for wire in list(self.serving):
            for _ in range(len(wire.up) + 1):
                self._read(wire)
        self.run_batch()
        while self.outgoing:
            self.carry_out()
        for client in self.clients():
            while client.wire is not None and client.wire.down:
                client.hear(self.now)
        for runner in self.runners():
            while runner.alive and runner.loading:
                runner.load()

    def _messages(self) -> bool:
        return any(wire.up or wire.down or not wire.is_open for wire in self.serving)


# How often each thing happens, beside the others.
ACTIONS: dict[str, int] = {
    "flow": 150, "submit": 15, "run_batch": 10, "carry_out": 10, "read": 10, "hear": 10, "work": 20, "dial": 20,
    "pass_time": 25, "tick": 10, "cancel": 8, "redeploy": 1, "submit_twice": 1, "jump": 1, "hush": 1, "lose_link": 4,
    "kill_child": 3, "kill_runner": 2, "crash_agent": 1, "crash_machine": 1, "crash_server": 2, "shut_down": 1,
    "fill_disk": 2, "switch": 2, "warm_up": 2, "stop_container": 4, "lie": 5, "blink": 4, "lose_machine": 1,
}  # fmt: skip
_METHODS = list(ACTIONS)
_WEIGHTS = list(ACTIONS.values())
