"""The decorator: what it takes and refuses, what the function still does here, and apps written for Beam."""

from __future__ import annotations

import json

import pytest
from place import Place

pytestmark = pytest.mark.e2e

BEAM_APP = """
    from {package} import Image, Output, QueueDepthAutoscaler, TaskPolicy, task_queue

    def load():
        return "loaded"

    @task_queue(
        app="", cpu=1.0, memory="256Mi", gpu="", gpu_count=0, image=Image(python_version="python3"), timeout=3600,
        retries=3, workers=1, keep_warm_seconds=10, max_pending_tasks=100, on_start=load, on_deploy=None,
        callback_url=None, volumes=None, disks=None, secrets=None, env={{"MODE": "test"}}, name="{package}-app",
        authorized=True, autoscaler=QueueDepthAutoscaler(max_containers=2, tasks_per_container=30), pricing=None,
        task_policy=TaskPolicy(max_retries=3, timeout=60, ttl=600), checkpoint_enabled=False,
        retry_for=[ConnectionError], inputs=None, outputs=None, pool=None, allow_marketplace=False,
    )
    def handler(context, text):
        import os
        with open("said.txt", "w") as file:
            file.write(text)
        output = Output(path="said.txt")
        output.save()
        return {{"mode": os.environ["MODE"], "on_start": context.on_start_value, "url": output.public_url(expires=60)}}
"""
WRONG = {
    "cpu=0.01": "0.1",
    "cpu='2'": '"100m"',
    "memory='lots'": "512mi",
    "memory=0": "from 32",
    "gpu=7": "A10G",
    "gpu_count=-1": "gpu",
    "timeout='long'": "a whole number",
    "retries=-1": "0 to 100",
    "workers=1.5": "a whole number",
    "keep_warm_seconds='x'": "seconds",
    "max_pending_tasks=0": "from 1",
    "on_start='load'": "a function",
    "callback_url='example.com'": "http://",
    "env={'A-B': '1'}": "letters",
    "name='a/b'": "letters",
    "authorized='no'": "True or False",
    "autoscaler=5": "QueueDepthAutoscaler",
    "autoscaler=QueueDepthAutoscaler(max_containers=0)": "1 to 1000",
    "task_policy=5": "TaskPolicy",
    "task_policy=TaskPolicy(ttl=-1)": "from 0",
    "retry_for=['ValueError']": "exception classes",
    "image='python:3.12'": "Image",
}


@pytest.mark.parametrize("package", ["beam", "beta9"])
def test_an_app_written_for_beam_deploys_unchanged(place: Place, package: str) -> None:
    """Its imports work where it is deployed and in the container, with every parameter and the name in the code."""
    place.app(BEAM_APP.format(package=package), f"{package}_app.py")
    deployed = place.cli("deploy", f"{package}_app.py:handler", "--json")
    assert deployed.returncode == 0, deployed.stderr
    assert json.loads(deployed.stdout)["deployment_name"] == f"{package}-app"
    task = place.ended(place.submit(f"{package}-app", text="hello"))
    assert task["status"] == "COMPLETE", task["failure_reason"]
    assert (task["result"]["mode"], task["result"]["on_start"]) == ("test", "loaded")
    assert place.request("GET", task["result"]["url"], token="").text == "hello"
    assert [output["name"] for output in task["outputs"]] == ["said.txt"]
    config = json.loads(task["stub"]["config"])
    assert (config["runtime"]["memory"], config["max_pending_tasks"]) == (256, 100)
    assert config["task_policy"] == {"max_retries": 3, "timeout": 60, "ttl": 600}
    assert config["autoscaler"]["max_containers"] == 2


def test_a_direct_call_says_what_to_use_instead(place: Place) -> None:
    """Calling a task queue like a function names `.put` and `.local` with the function's own name."""
    done = place.script(
        """
        from treadle import task_queue

        @task_queue()
        def double(x):
            return 2 * x

        print("local:", double.local(x=4), double.__name__)
        try:
            double(4)
        except NotImplementedError as error:
            print(error)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    local, told = done.stdout.splitlines()
    assert local == "local: 8 double"
    assert "double.put(" in told and "double.local(" in told


def test_the_defaults_are_beams_but_for_the_pending_tasks(place: Place) -> None:
    """A bare `@task_queue` has Beam's values, and room for 10 000 pending tasks."""
    made = place.deploy("from treadle import task_queue\n\n@task_queue\ndef handler(): pass\n", name="bare")
    config = json.loads(place.task(place.submit("bare"))["stub"]["config"])
    assert config["runtime"] == {
        "cpu": 1000, "memory": 128, "gpu": "", "gpus": [], "gpu_count": 0, "image_id": made["image_id"],
    }  # fmt: skip
    assert config["task_policy"] == {"max_retries": 3, "timeout": 3600, "ttl": 0}
    assert (config["workers"], config["keep_warm_seconds"], config["max_pending_tasks"]) == (1, 10, 10_000)
    assert config["autoscaler"] == {
        "type": "queue_depth", "max_containers": 1, "tasks_per_container": 1, "min_containers": 0,
    }  # fmt: skip
    assert config["authorized"] is True


def test_a_wrong_value_is_refused_at_import_with_what_is_allowed(place: Place) -> None:
    """Every parameter is checked where it is declared: the error names it, its value and what is allowed."""
    place.app(f"CASES = {list(WRONG)!r}\n", "cases.py")
    done = place.script(
        """
        import json
        import treadle
        from cases import CASES
        from treadle import QueueDepthAutoscaler, TaskPolicy

        def handler():
            pass

        said = {}
        for case in CASES:
            try:
                eval(f"treadle.task_queue({case})(handler)")
            except ValueError as error:
                said[case] = str(error)
        print(json.dumps(said))
        """
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert list(said) == list(WRONG)
    for case, allowed in WRONG.items():
        option = case.partition("(")[2] or case
        assert option.partition("=")[0] in said[case] and allowed in said[case], said[case]


def test_deploying_a_wrong_value_names_the_line(place: Place) -> None:
    """The CLI tells it with the file and the line of the decorator."""
    place.app('from treadle import task_queue\n\n@task_queue(memory="lots")\ndef handler(): pass\n', "wrong.py")
    done = place.cli("deploy", "wrong.py:handler", "--name", "wrong")
    assert done.returncode != 0 and done.stderr.count("\n") == 1
    assert "wrong.py:3" in done.stderr and "memory='lots'" in done.stderr and "Allowed" in done.stderr


def test_what_is_not_built_yet_is_refused_and_never_ignored(place: Place) -> None:
    """A parameter that would have no effect is an error that says so."""
    place.app('from treadle import task_queue\n\n@task_queue(disks=["d"])\ndef handler(): pass\n', "later.py")
    done = place.cli("deploy", "later.py:handler", "--name", "later")
    assert done.returncode != 0 and "disks" in done.stderr and done.stderr.count("\n") == 1
