"""The users of the simulated world: they submit, cancel, deploy and switch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.making import IMAGE, SOURCE
from treadle.engine.catalog import Deploy, NewDeployment
from treadle.engine.fleet import StopContainer
from treadle.engine.queue import CancelTasks, Submit
from treadle.engine.switch import Which
from treadle.engine.writer import Call
from treadle.model.deployment import Autoscaler, Deployment, QueueConfig

from .server import Server

URL = "https://example.com/hook"


class Users(Server):
    """What people ask the server for."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, folder)
        self.deployments: list[Deployment] = []

    def submit(self) -> None:
        deployment = self.random.choice(self.deployments)
        for _ in range(self.random.choice([1, 1, 1, 1, 2, 2, 5, 20])):
            if not self._draining:
                self._submit(deployment)

    def _new_task_id(self) -> str:
        return f"task-{self._next():06}"

    def _submit(self, deployment: Deployment) -> None:
        task_id = self._new_task_id()
        url = URL if self.random.random() < 0.5 else None

        def answered(answer: Any) -> None:
            self.ledger.answered([task_id], deployment.config, taken=answer == task_id)

        self.ask(self.engine.queue.submit, Submit(task_id, deployment, b"{}", url), answered)

    def submit_batch(self) -> None:
        """All of it, or nothing."""
        deployment = self.random.choice(self.deployments)
        if self._draining:
            return
        ids = [self._new_task_id() for _ in range(self.random.choice([1, 2, 3, 6]))]
        self.ledger.offer(ids)

        def answered(answer: Any) -> None:
            self.ledger.answered(ids, deployment.config, taken=answer == ids)

        self.ask(self.engine.queue.submit_many, [Submit(task_id, deployment, b"{}", URL) for task_id in ids], answered)

    def submit_twice(self) -> None:
        """A request that cannot be written, among one that can."""
        if self.ledger.seen() and not self._draining:
            deployment = self.random.choice(self.deployments)
            known, task_id = self.random.choice(self.ledger.seen()).id, self._new_task_id()
            calls = [Call(self.engine.queue.submit, Submit(one, deployment, b"{}")) for one in (known, task_id)]
            self.engine.writer.run(calls)
            assert isinstance(calls[0].answer, Exception), f"{known} was taken twice"
            self.ledger.answered([task_id], deployment.config, taken=calls[1].answer == task_id)

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
            workers=self.random.choice([1, 1, 1, 2, 3]),
            retries=self.random.randint(0, 3),
            retry_delay=self.random.choice([0.0, 1.0, 4.0]),
            ttl=self.random.choice([0, 0, 20]),
            keep_warm_seconds=self.random.choice([0, 5]),
            max_pending_tasks=self.random.choice([4, 8, 100]),
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

        self.ask(self.engine.switch.deploy, verb, answered)
        if self._kind:
            self.run_batch()
            self.carry_out()

    def redeploy(self) -> None:
        self._deploy(self.random.choice(self.deployments).name)

    def redeploy_in_vain(self) -> None:
        """A new version meets a full disk, in one batch with the start of one that was there."""
        deployment = self.random.choice(self.deployments)
        self._deploy(deployment.name)
        self.ask(self.engine.switch.start, Which(self.workspace.id, deployment.id), self._switched)
        self.store.broken = 1
        self.run_batch()

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

