"""The decorator: names, defaults, merge rules, and errors that say what is allowed."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import treadle
from treadle.model.deployment import Autoscaler, QueueConfig, check_config
from treadle.model.errors import InvalidOption
from treadle.model.volume import VolumeMount
from treadle.sdk.definition import locate
from treadle.sdk.image import Image
from treadle.sdk.options import GpuType, QueueDepthAutoscaler, TaskPolicy
from treadle.sdk.task_queue import TaskQueue, task_queue
from treadle.sdk.volume import Volume


def double(x: int = 1) -> int:
    """Twice as much."""
    return 2 * x


async def later(x: int) -> int:
    return x


def _config(**options: Any) -> QueueConfig:
    made: TaskQueue[..., Any] = task_queue(**options)(double)
    return made.config


DEFAULTS = {
    "app": "", "cpu": 1.0, "memory": 128, "gpu": "", "gpu_count": 0, "image": None, "timeout": 3600, "retries": 3,
    "workers": 1, "keep_warm_seconds": 10, "max_pending_tasks": 10_000, "on_start": None, "on_deploy": None,
    "callback_url": None, "volumes": None, "disks": None, "secrets": None, "env": None, "name": None,
    "authorized": True, "autoscaler": None, "task_policy": None, "checkpoint_enabled": False, "retry_for": None,
    "min_isolation": 0, "block_network": False,
    "pricing": None, "inputs": None, "outputs": None, "pool": None, "allow_marketplace": False,
}  # fmt: skip


def test_parameters_and_defaults_are_beams() -> None:
    """Every parameter of Beam's decorator is there under its name, with its default."""
    parameters = inspect.signature(task_queue).parameters.values()
    assert {one.name: one.default for one in parameters if one.name != "func"} == DEFAULTS


def test_without_options_the_definition_has_the_defaults() -> None:
    """A bare decorator and empty parentheses mean the same."""
    bare: TaskQueue[..., Any] = task_queue(double)
    assert bare.config == _config() == QueueConfig(handler=f"{__name__}:double")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cpu": 0.1}, {"cpu": 100}),
        ({"cpu": "500m"}, {"cpu": 500}),
        ({"cpu": 64}, {"cpu": 64_000}),
        ({"memory": 512}, {"memory": 512}),
        ({"memory": "2gi"}, {"memory": 2048}),
        ({"memory": "1.5g"}, {"memory": 1500}),
        ({"gpu": "T4"}, {"gpus": ("T4",), "gpu_count": 1}),
        ({"gpu": GpuType.A10G, "gpu_count": 2}, {"gpus": ("A10G",), "gpu_count": 2}),
        ({"gpu": ["A10G", "T4"]}, {"gpus": ("A10G", "T4"), "gpu_count": 1}),
        ({"gpu": GpuType.NoGPU}, {"gpus": (), "gpu_count": 0}),
        ({"timeout": -1}, {"timeout": 0}),
        ({"timeout": 0}, {"timeout": 0}),
        ({"timeout": 5}, {"timeout": 5}),
        ({"retries": 0}, {"retries": 0}),
        ({"workers": 0}, {"workers": 1}),
        ({"workers": -3}, {"workers": 1}),
        ({"workers": 4}, {"workers": 4}),
        ({"keep_warm_seconds": 1}, {"keep_warm_seconds": 1}),
        ({"keep_warm_seconds": 0}, {"keep_warm_seconds": 0}),
        ({"keep_warm_seconds": -5}, {"keep_warm_seconds": 0}),
        ({"keep_warm_seconds": 1.2}, {"keep_warm_seconds": 2}),
        ({"max_pending_tasks": 1}, {"max_pending_tasks": 1}),
        ({"callback_url": "https://example.com/hook"}, {"callback_url": "https://example.com/hook"}),
        ({"env": {"KEY": "value"}}, {"env": {"KEY": "value"}}),
        ({"authorized": False}, {"authorized": False}),
        ({"app": "shop"}, {"app": "shop"}),
        ({"checkpoint_enabled": True}, {"checkpoint_enabled": True}),
        ({"min_isolation": 2}, {"min_isolation": 2}),
        ({"block_network": True}, {"block_network": True}),
        ({"on_start": double}, {"on_start": "double"}),
        ({"retry_for": [OSError, KeyError]}, {"retry_for": ("OSError", "KeyError")}),
        ({"retry_for": OSError}, {"retry_for": ("OSError",)}),
        ({"retry_for": []}, {"retry_for": ()}),
        ({"image": Image(python_packages=["pillow"])}, {"image": Image(python_packages=["pillow"]).spec}),
        (
            {"autoscaler": QueueDepthAutoscaler(max_containers=3, tasks_per_container=5, min_containers=1)},
            {"autoscaler": Autoscaler(max_containers=3, tasks_per_container=5, min_containers=1)},
        ),
        # the policy's values override the decorator's unless they are zero
        ({"task_policy": TaskPolicy(max_retries=7)}, {"retries": 7}),
        ({"task_policy": TaskPolicy(max_retries=0)}, {"retries": 3}),
        ({"task_policy": TaskPolicy(max_retries=0), "retries": 0}, {"retries": 0}),
        ({"task_policy": TaskPolicy(timeout=9), "timeout": 5}, {"timeout": 9}),
        ({"task_policy": TaskPolicy(timeout=0), "timeout": 5}, {"timeout": 5}),
        ({"task_policy": TaskPolicy(timeout=-1), "timeout": 5}, {"timeout": 0}),
        ({"task_policy": TaskPolicy(ttl=60)}, {"ttl": 60}),
        (
            {"task_policy": TaskPolicy(retry_delay=0, retry_delay_max=5.5)},
            {"retry_delay": 0, "retry_delay_max": 5.5},
        ),
        ({"volumes": [Volume("weights", "./w")]}, {"volumes": (VolumeMount("weights", "w"),)}),
        ({"secrets": ["B", "A", "B"]}, {"secrets": ("B", "A")}),
        # what is not available may be given at its default
        ({"volumes": [], "secrets": [], "pool": None, "allow_marketplace": False}, {}),
    ],
)
def test_options_become_the_definition(options: dict[str, Any], expected: dict[str, Any]) -> None:
    """Units, merge rules and lower bounds are applied where the queue is declared."""
    config = _config(**options)
    changed = {name: getattr(config, name) for name in config.__struct_fields__}
    default = _config()
    assert {name: value for name, value in changed.items() if value != getattr(default, name)} == {
        name: value for name, value in expected.items() if value != getattr(default, name)
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpu": 0}, ["cpu=0", "0.1 to 64", '"100m"']),
        ({"cpu": "many"}, ["cpu='many'", "0.1 to 64"]),
        ({"cpu": True}, ["cpu=True"]),
        ({"memory": "lots"}, ["memory='lots'", '"512mi"']),
        ({"memory": 0}, ["memory=0"]),
        ({"gpu": 5}, ["gpu=5", '"A10G"']),
        ({"gpu_count": 2}, ["gpu_count=2", "unless gpu"]),
        ({"gpu": "T4", "gpu_count": "2"}, ["gpu_count='2'", "whole number"]),
        ({"image": "python:3.12"}, ["image='python:3.12'", "an Image"]),
        ({"timeout": 1.5}, ["timeout=1.5", "whole number"]),
        ({"timeout": 10**9}, ["timeout=1000000000", "604800"]),
        ({"retries": -1}, ["retries=-1", "0 to 100"]),
        ({"retries": True}, ["retries=True"]),
        ({"workers": "2"}, ["workers='2'", "whole number"]),
        ({"workers": 1000}, ["workers=1000", "256"]),
        ({"keep_warm_seconds": "long"}, ["keep_warm_seconds='long'", "number of seconds"]),
        ({"keep_warm_seconds": float("inf")}, ["keep_warm_seconds=inf"]),
        ({"max_pending_tasks": 0}, ["max_pending_tasks=0", "from 1"]),
        ({"on_start": "load"}, ["on_start='load'", "a function"]),
        ({"callback_url": "example.com"}, ["callback_url='example.com'", "http://"]),
        ({"callback_url": 7}, ["callback_url=7"]),
        ({"env": ["A=b"]}, ["env=['A=b']", "a dict"]),
        ({"env": {"A": 1}}, ["env['A']=1", "a string"]),
        ({"env": {"1A": "x"}}, ["env='1A'"]),
        ({"volumes": ["weights"]}, ["volumes=['weights']", "a list of Volumes"]),
        ({"volumes": Volume("a", "b")}, ["volumes=", "a list of Volumes"]),
        ({"volumes": [Volume("a", "x"), Volume("b", "x/y")]}, ["mount_path='x/y'", "not apart from 'x'"]),
        ({"secrets": "KEY"}, ["secrets='KEY'", "a list of names"]),
        ({"secrets": [5]}, ["secrets=[5]", "a list of names"]),
        ({"secrets": ["MY-KEY"]}, ["secrets='MY-KEY'", "letters, digits"]),
        ({"name": "two words"}, ["name='two words'", "letters, digits"]),
        ({"name": "latest"}, ["name='latest'"]),
        ({"authorized": "no"}, ["authorized='no'", "True or False"]),
        ({"autoscaler": 3}, ["autoscaler=3", "QueueDepthAutoscaler"]),
        ({"autoscaler": QueueDepthAutoscaler(max_containers=0)}, ["max_containers=0", "from 1"]),
        ({"autoscaler": QueueDepthAutoscaler(min_containers=2)}, ["min_containers=2", "0 to 1"]),
        ({"autoscaler": QueueDepthAutoscaler(tasks_per_container=0.5)}, ["tasks_per_container=0.5"]),  # type: ignore[arg-type]
        ({"task_policy": {"ttl": 5}}, ["task_policy=", "a TaskPolicy"]),
        ({"task_policy": TaskPolicy(ttl=-1)}, ["ttl=-1", "from 0"]),
        ({"task_policy": TaskPolicy(retry_delay=-1)}, ["retry_delay=-1"]),
        ({"checkpoint_enabled": 1}, ["checkpoint_enabled=1", "True or False"]),
        ({"min_isolation": 4}, ["min_isolation=4", "from 0 to 3"]),
        ({"min_isolation": "2"}, ["min_isolation='2'", "a whole number"]),
        ({"block_network": "yes"}, ["block_network='yes'", "True or False"]),
        ({"retry_for": ["OSError"]}, ["retry_for='OSError'", "exception classes"]),
        ({"retry_for": [OSError()]}, ["retry_for=OSError()"]),
        ({"app": 5}, ["app=5", "a str"]),
        *(
            ({option: ["something"]}, [option, "not available yet"])
            for option in ("disks", "inputs", "outputs", "on_deploy", "pricing")
        ),
        ({"pool": "fast"}, ["pool='fast'", "Beam's hosted"]),
        ({"allow_marketplace": True}, ["allow_marketplace=True", "Beam's hosted"]),
    ],
)
def test_a_wrong_option_is_refused_where_it_is_written(options: dict[str, Any], said: list[str]) -> None:
    """The error names the option, the value and what is allowed; it is a ValueError too."""
    with pytest.raises(InvalidOption) as caught:
        _config(**options)
    assert isinstance(caught.value, ValueError)
    assert [word for word in said if word not in str(caught.value)] == []


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(sorted(DEFAULTS)), anything, max_size=3))
def test_any_values_are_accepted_or_refused_with_an_option_named(options: dict[str, Any]) -> None:
    """No value of any type crashes the decorator or slips through in a form the server would refuse."""
    try:
        config = _config(**options)
    except InvalidOption as error:
        assert any(option in str(error) for option in options)
    else:
        assert check_config(config) == config


def test_an_unknown_option_is_a_type_error() -> None:
    """A misspelt parameter is an error, as in any function."""
    with pytest.raises(TypeError, match="max_retries"):
        task_queue(max_retries=3)  # type: ignore[call-overload]


def test_only_functions_can_be_decorated() -> None:
    """A class instance or a built-in has no handler to import."""
    with pytest.raises(InvalidOption, match="Decorate a function"):
        task_queue(print)


def test_the_queue_looks_like_its_function() -> None:
    """Name, docstring and module stay; the parts a runner needs are there."""
    queue = task_queue(on_start=double, retry_for=[OSError], name="twice")(double)
    assert (queue.__name__, queue.__doc__, queue.__module__) == ("double", "Twice as much.", __name__)  # type: ignore[attr-defined]
    assert (queue.func, queue.on_start, queue.retry_for, queue.name) == (double, double, (OSError,), "twice")


def test_a_direct_call_says_to_use_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a container the queue is not called like a function."""
    monkeypatch.delenv("CONTAINER_ID", raising=False)
    with pytest.raises(NotImplementedError, match=r"double\.put\(.*double\.local\("):
        task_queue(double)(3)


def test_a_direct_call_runs_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CONTAINER_ID is set, the function just runs."""
    monkeypatch.setenv("CONTAINER_ID", "taskqueue-1")
    assert task_queue(double)(3) == 6


def test_local_runs_here() -> None:
    """`.local()` calls the function in this process, with its defaults."""
    assert task_queue(double).local(4) == 8
    assert task_queue(double).local() == 2
    coroutine = task_queue(later).local(4)
    assert inspect.iscoroutine(coroutine)
    coroutine.close()


def test_put_does_nothing_while_the_module_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.put()` at the top of an app does not enqueue when a container imports the app."""
    monkeypatch.setenv("TREADLE_IMPORTING_USER_CODE", "true")
    assert task_queue(double).put(1) is False


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", float("nan"), float("inf"), {("a",): 1}])
def test_arguments_that_are_not_json_are_a_type_error(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    """They are refused before anything is sent: here no server exists."""
    monkeypatch.setenv("TREADLE_URL", "http://127.0.0.1:9")
    with pytest.raises(TypeError, match=r"double\.put\(\) must be JSON") as caught:
        task_queue(double).put(value)  # type: ignore[arg-type]
    assert caught.value.__suppress_context__, "the message holds what json said"


def _function(root: Path, file: str, body: str = "def f(): pass") -> Any:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body)
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(body, str(path), "exec"), scope)
    return scope["f"]


@pytest.mark.parametrize(
    ("file", "handler"),
    [("app.py", "app:f"), ("jobs/resize.py", "jobs.resize:f"), ("jobs/__init__.py", "jobs:f")],
)
def test_the_handler_is_the_path_from_the_working_directory(tmp_path: Path, file: str, handler: str) -> None:
    """A container imports the function by its module below the working directory, also when it is `__main__` here."""
    assert locate(_function(tmp_path, file), tmp_path) == handler


def test_a_function_behind_another_decorator_is_found(tmp_path: Path) -> None:
    """functools.wraps leads to the file of the function itself."""
    import functools

    inner = _function(tmp_path, "app.py")
    outer = functools.wraps(inner)(lambda: None)
    assert locate(outer, tmp_path) == "app:f"


def test_functions_that_a_container_cannot_import_are_refused(tmp_path: Path) -> None:
    """Not in a file, nested, outside, or in a file whose name is no module's."""
    scope: dict[str, Any] = {}
    exec("def f(): pass", scope)
    with pytest.raises(InvalidOption, match=r"not defined in a file"):
        locate(scope["f"], tmp_path)
    with pytest.raises(InvalidOption, match=r"top of its module"):
        locate(lambda: None, tmp_path)
    with pytest.raises(InvalidOption, match=r"not below the working directory.*Run this from"):
        locate(double, tmp_path)
    with pytest.raises(InvalidOption, match=r"'my-app' is no name"):
        locate(_function(tmp_path, "my-app.py"), tmp_path)


@pytest.mark.process
def test_importing_treadle_loads_nothing_heavy() -> None:
    """`import treadle` and a decorated function cost neither HTTP, rich, pathspec nor the server's parts."""
    script = (
        "import sys, treadle; light = set(sys.modules)\n"
        "from treadle import task_queue, Image, TaskPolicy\n"
        "def f(): pass\n"
        "queue = task_queue(cpu=1)(f)\n"
        "heavy = {'http.client', 'rich', 'pathspec', 'asyncio', 'typer', 'litestar', 'apsw', 'psutil', 'zipfile'}\n"
        "assert 'msgspec' not in light, 'import treadle'\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_loads() -> None:
    """Each name in `treadle.__all__` is there."""
    assert [name for name in treadle.__all__ if getattr(treadle, name, None) is None] == []


def test_serve_does_nothing_on_import_and_is_refused_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script may call it at its end, though Treadle imports that script to serve it; a container has nobody to save."""
    queue = task_queue(double)
    with pytest.raises(InvalidOption, match=r"url_type='host' is not allowed"):
        queue.serve(url_type="host")
    monkeypatch.setenv("CONTAINER_ID", "c1")
    with pytest.raises(InvalidOption, match=r"A container cannot serve its source"):
        queue.serve()
    monkeypatch.setenv("TREADLE_IMPORTING_USER_CODE", "true")
    queue.serve()
