"""The machines of the simulated world, what goes wrong with them, and the time that passes there."""

from __future__ import annotations

from pathlib import Path

from treadle.engine.fleet import Drain
from treadle.engine.queue import CancelTasks, Report
from treadle.model.container import ContainerStatus
from treadle.model.wire import AttemptRef, ContainerSpec, Died, Finished, Gpu, Raised

from .machines import Agent, Runner, Wire
from .rows import truth
from .users import Users

MEMORY = [256, 512]  # MiB of a machine; a container takes 64 to 256


class Mishaps(Users):
    """Agents, runners and links, and every way in which they fail."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self._takes = self.random.choice([(0.0001,), (0.0001, 0.002), (0.0001, 0.002, 0.5)])  # seconds in the child
        self.agents = [self._agent() for _ in range(self.random.randint(1, 2))]

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
        eager = [client for client in self.clients() if client.has_news]
        if eager:
            self.random.choice(eager).hear(self.now)

    def work(self) -> None:
        """Something happens to a child of a runner."""
        runners = [runner for runner in self.runners() if not runner.frozen]
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
            return Finished(ref, result=truth(ref.task_id, ref.attempt), ran=self.random.choice(self._takes))
        if how < 0.75:
            return Finished(ref, raised=Raised("ValueError", "no", "", retryable=how < 0.7, not_json=how < 0.53))
        if how < 0.95:
            return Finished(ref, died=Died(self.random.choice([-9, -11, 3]), oom_kills=self.random.randint(0, 1)))
        return Finished(ref, timed_out=True)

    # time

    def pass_time(self) -> None:
        self._pass(self.random.choice([0.0, 0.1, 0.5, 1.0, 2.0]))
        for _ in range(self.random.randint(0, 1)):
            self.tick()

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        self.lived += seconds
        for runner in self.runners():
            runner.tick(self.now)
        for agent in self.agents:
            agent.tick(self.now)

    def _exchange(self) -> None:
        """All that is under way moves on, each by its next step at least."""
        for wire in list(self.serving):
            for _ in range(len(wire.up) + 1):
                self._read(wire)
        self.run_batch()
        while self.outgoing:
            self.carry_out()
        for client in self.random.sample(clients := self.clients(), len(clients)):
            while client.has_news:
                client.hear(self.now)
        for runner in self.runners():
            while runner.alive and runner.loading and not runner.frozen:
                runner.load()

    def rest(self) -> None:
        """For a moment nothing new happens, and all agree."""
        self._kind, before = True, self._kind
        self.store.broken = 0
        self._rest()
        self._kind = before

    def _rest(self) -> None:
        """Everything that is under way arrives."""
        for _ in range(40):
            self._exchange()
            if not (self.pending or self.outgoing or self._messages()):
                self.ledger.check_agreed(self.engine, self.links, self.runners())
                return
        raise AssertionError("the world does not come to rest: somebody talks for ever")

    def _messages(self) -> bool:
        waits = any(wire.up or not wire.is_open for wire in self.serving)
        return waits or any(client.has_news for client in self.clients())

    def jump(self) -> None:
        """The clock is set, or the machine slept."""
        self.now += self.random.choice([-60.0, -5.0, 17.0, 90.0])

    def tick(self) -> None:
        """What the server does each second."""
        if self.engine.queue.due(self.now):
            self.do(self.engine.queue.wake)
        self.do(self.engine.queue.reap)
        self.do(self.engine.fleet.sweep)
        self.do(self.engine.queue.recall)
        self.do(self.engine.switch.clear)
        self._scale()

    def hush(self) -> None:
        """Nothing is heard of anybody for so long that leases run out, while the server goes on."""
        for _ in range(6):
            self.now += 4.0
            self.lived += 4.0
            self.do(self.engine.fleet.sweep)
            self.do(self.engine.queue.recall)
            self.run_batch()

    # mishaps

    def lose_link(self) -> None:
        linked = [client for client in self.clients() if client.wire is not None]
        if linked:
            self._cut(self.random.choice(linked))

    def cancel_apart(self) -> None:
        """What a runner has is cancelled while it is cut off; it calls again, and all agree."""
        busy = [runner for runner in self.runners() if runner.wire is not None and runner.running]
        if busy:
            runner = self.random.choice(busy)
            self._cut(runner)
            ids = [ref.task_id for ref in [*runner.running, *runner.backlog]]
            self.ask(self.engine.queue.cancel, CancelTasks(self.workspace.id, ids))
            self.rest()
            self._dial(runner)
            self.rest()

    def _cut(self, client: Runner | Agent) -> None:
        """Its link breaks, or it dies, with the last of what it has said still on its way."""
        wire = client.wire
        client.cut(self.now)
        if wire is not None:
            self._tear(wire.up)

    def _kill(self, runner: Runner) -> None:
        self._cut(runner)
        runner.end()

    def freeze(self) -> None:
        """A runner is stopped for longer than a lease while everybody else goes on, with a full disk now and then."""
        busy = [runner for runner in self.runners() if runner.running and not runner.stopping]
        if busy:
            runner = self.random.choice([one for one in busy if self._has_stand_in(one)] or busy)
            (deployment,) = [one for one in self.deployments if one.id == runner.deployment_id]
            runner.frozen = True
            for _ in range(self.random.randint(17, 25)):
                self.store.broken = int(self.random.random() < 0.1)
                if self.random.random() < 0.3 and not self._draining:
                    self._submit(deployment)  # so that there is another container for what runs here
                self._second()
            runner.frozen = False

    def _has_stand_in(self, runner: Runner) -> bool:
        """Whether what runs there could begin elsewhere at once."""
        return any(one.deployment_id == runner.deployment_id and one.idle for one in self.runners())

    def _second(self) -> None:
        """Everybody who can does what is to be done."""
        self._pass(1.0)
        self.tick()
        self.dial()
        for _ in range(2):
            self.work()
            self._exchange()

    def kill_child(self) -> None:
        runners = self.runners()
        if runners:
            self.random.choice(runners).lose_idle_child()

    def kill_runner(self) -> None:
        runners = self.runners()
        if runners:
            self._kill(self.random.choice(runners))

    def crash_agent(self) -> None:
        agent = self.random.choice(self.agents)
        self._cut(agent)
        agent.restart()

    def crash_machine(self) -> None:
        agent = self.random.choice(self.agents)
        for runner in agent.runners():
            self._kill(runner)
        self._cut(agent)
        agent.restart()

    def shut_down(self) -> None:
        """The server drains, and is started again later or never."""
        if not self._draining:
            self._draining = True
            self.ask(self.engine.fleet.drain, Drain(self.random.choice([0.0, 1.0, 5.0])))

    def fill_disk(self) -> None:
        self.store.broken = self.random.randint(1, 2)
        self.store.full_at = self.random.choice([0, 0, 1, 2, 5])

    def stay_full(self) -> None:
        """The disk is full for longer than a lease, while everybody else goes on."""
        for _ in range(self.random.randint(14, 25)):
            self.store.broken = 1000
            self._second()
        self.store.broken = 0

    def blink(self) -> None:
        """Some links break, and their owners are back before the server knows."""
        for client in self.clients():
            if client.wire is not None and self.random.random() < 0.5:
                self._cut(client)
                self._dial(client)
        for wire in self.random.sample(self.serving, len(self.serving)):
            for _ in range(len(wire.up) + 1):
                self._read(wire)

    def lose_machine(self) -> None:
        """A machine is gone for good, and with it all that would tell of it. Another one takes its place."""
        agent = self.random.choice(self.agents)
        for runner in agent.runners():
            self._kill(runner)
        self._cut(agent)
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

