"""Options of a definition: what is allowed, and that a refusal names the option, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.model.deployment import (
    Autoscaler,
    ImageSpec,
    QueueConfig,
    check_config,
    check_env,
    check_image,
    check_name,
    check_url,
    parse_cpu,
    parse_memory,
    shown,
    spec_digest,
)
from treadle.model.errors import InvalidOption, listed
from treadle.model.volume import VolumeMount


def refused(error: pytest.ExceptionInfo[InvalidOption], option: str, value: object) -> None:
    """The message names option and value, the advice says what is allowed."""
    assert error.value.message == f"{option}={shown(value)} is not allowed."
    assert error.value.advice.startswith("Allowed: ")
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("value", "millicores"),
    [(1, 1000), (0.1, 100), (0.5, 500), (64, 64_000), (2.25, 2250), ("100m", 100), ("1500m", 1500), ("64000m", 64_000)],
)
def test_cpu(value: object, millicores: int) -> None:
    """Cores as a number, or millicores as text."""
    assert parse_cpu(value) == millicores


@pytest.mark.parametrize(
    "value",
    [0, 0.09, -1, 65, "99m", "64001m", "1", "1.5m", "m", "1000M", "", None, True, float("nan"), float("inf"), [1], "９m"],
)
def test_cpu_out_of_range(value: object) -> None:
    """Everything else is refused."""
    with pytest.raises(InvalidOption) as error:
        parse_cpu(value)
    refused(error, "cpu", value)


@pytest.mark.parametrize(
    ("value", "mib"),
    [
        (128, 128), (32, 32), (1_048_576, 1_048_576), ("128m", 128), ("128mb", 128), ("128Mi", 128), ("128MiB", 128),
        ("1g", 1000), ("1gb", 1000), ("1gi", 1024), ("1GiB", 1024), ("0.5gi", 512), ("1.5g", 1500), (" 64 mi ", 64),
        ("32.2mi", 33),
    ],
)  # fmt: skip
def test_memory(value: object, mib: int) -> None:
    """MiB as a number, or text with a unit."""
    assert parse_memory(value) == mib


@pytest.mark.parametrize(
    "value",
    [31, 0, -5, 1_048_577, "31m", "2000000gi", "128", "128k", "gi", "-1g", "1e3m", "", None, True, 128.0, "1.g", "1..5g"],
)
def test_memory_out_of_range(value: object) -> None:
    """Everything else is refused."""
    with pytest.raises(InvalidOption) as error:
        parse_memory(value)
    refused(error, "memory", value)


@pytest.mark.parametrize("name", ["a", "A1", "resize-images_v2.1", "0", "x" * 64, "v1", "Latest"])
def test_names(name: str) -> None:
    """Letters, digits, '.', '_' and '-'."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-a", ".a", "_a", "a b", "a/b", "a%b", "é", "x" * 65, "id", "public", "latest", "warmup", "a\n", None, 5],
)
def test_names_that_would_break_the_url(name: object) -> None:
    """Everything else is refused, and so are the words that mean something in the URL."""
    with pytest.raises(InvalidOption) as error:
        check_name(name)
    refused(error, "name", name)


@pytest.mark.parametrize(
    "url",
    ["http://a", "https://a.example/x?y=1#z", "http://127.0.0.1:8000/", "http://[::1]:80/x", "https://a.example/u:p@x", "http://a/ü"],
)
def test_urls(url: str) -> None:
    """Absolute, http or https, with a host."""
    assert check_url("callback_url", url) == url


@pytest.mark.parametrize(
    "url",
    [
        "", "a", "//a", "ftp://a", "http://", "http:///x", "https://?x", "http://a b", "http://a/\n", "javascript:1",
        "http://" + "x" * 2050, "http://:80/x", "http://[::1", "http://a:b/", "http://a:99999/", "http://u@/x", "https://u:p@a.example",
        "http://u@a", None, 5,
        "http://a/\0", "http://a/\ud800",
    ],
)  # fmt: skip
def test_urls_that_are_none(url: object) -> None:
    """Everything else is refused."""
    with pytest.raises(InvalidOption) as error:
        check_url("callback_url", url)
    refused(error, "callback_url", url)


def test_env() -> None:
    """Names of letters, digits and '_' with text values."""
    assert check_env("env", {"A": "", "_b1": "x=\ny"}) == {"A": "", "_b1": "x=\ny"}


@pytest.mark.parametrize(
    ("env", "option", "value"),
    [
        (None, "env", None),
        ([("A", "b")], "env", [("A", "b")]),
        ({"1A": "b"}, "env", "1A"),
        ({"A-B": "b"}, "env", "A-B"),
        ({"A\n": "b"}, "env", "A\n"),
        ({"": "b"}, "env", ""),
        ({5: "b"}, "env", 5),
        ({"A": 5}, "env['A']", 5),
        ({"A": "\0"}, "env['A']", "\0"),
    ],
)
def test_env_that_no_process_could_have(env: object, option: str, value: object) -> None:
    """The name or the value that is wrong is told."""
    with pytest.raises(InvalidOption) as error:
        check_env("env", env)
    refused(error, option, value)


RANGES: list[tuple[str, Any, Any]] = [
    ("timeout", 0, 7 * 86400), ("retries", 0, 100), ("retry_delay", 0, 86400),
    ("retry_delay_max", 0, 86400), ("ttl", 0, 30 * 86400), ("workers", 1, 256), ("keep_warm_seconds", 0, 86400),
    ("max_pending_tasks", 1, 10_000_000), ("cpu", 100, 64_000), ("memory", 32, 1_048_576),
]  # fmt: skip


@pytest.mark.parametrize(("option", "low", "high"), RANGES)
def test_each_number_has_a_range(option: str, low: int, high: int) -> None:
    """Its ends are allowed, what is beyond is not."""
    for value in (low, high):
        check_config(QueueConfig(handler="app:f", **{option: value}))
    for value in (low - 1, high + 1, float("nan")):
        with pytest.raises((InvalidOption, ValueError), match=option):
            check_config(QueueConfig(handler="app:f", **{option: value}))


@pytest.mark.parametrize(
    ("scale", "option"),
    [
        (Autoscaler(max_containers=0), "max_containers"),
        (Autoscaler(max_containers=1001), "max_containers"),
        (Autoscaler(tasks_per_container=0), "tasks_per_container"),
        (Autoscaler(min_containers=2, max_containers=1), "min_containers"),
        (Autoscaler(min_containers=-1), "min_containers"),
    ],
)
def test_an_autoscaler_must_make_sense(scale: Autoscaler, option: str) -> None:
    """No fewer at most than at least."""
    with pytest.raises(InvalidOption, match=option):
        check_config(QueueConfig(handler="app:f", autoscaler=scale))


@pytest.mark.parametrize("handler", ["app:f", "a.b.c:f_1", "_a:_f"])
def test_handlers(handler: str) -> None:
    """A module and a function in it."""
    assert check_config(QueueConfig(handler=handler)).handler == handler


@pytest.mark.parametrize("handler", ["", "app", "app:", ":f", "app:f.g", "app:f()", "../app:f", "app f", "1app:f", "app:f\n"])
def test_handlers_that_cannot_be_imported(handler: str) -> None:
    """Everything else is refused."""
    with pytest.raises(InvalidOption) as error:
        check_config(QueueConfig(handler=handler))
    refused(error, "handler", handler)


@pytest.mark.parametrize("version", ["python3", "python3.12", "3.11", "3.11.4", "3"])
def test_python_versions(version: str) -> None:
    """With or without the word."""
    check_image(ImageSpec(python_version=version))


@pytest.mark.parametrize("version", ["", "python2.7", "2", "3.", "python", "3.11.4.1", "3.x", "3.11\n", ">=3.11"])
def test_python_versions_that_are_none(version: str) -> None:
    """Never another version than the one that was asked for."""
    with pytest.raises(InvalidOption, match="python_version"):
        check_image(ImageSpec(python_version=version))


@pytest.mark.parametrize("package", ["", "  ", "-e .", "--index-url=x", " -r x", "a\nb"])
def test_packages_are_requirements_and_no_options(package: str) -> None:
    """A line of a requirements file could say anything to the installer."""
    with pytest.raises(InvalidOption, match="python_packages"):
        check_image(ImageSpec(python_packages=("numpy", package)))


@given(st.dictionaries(st.text(), st.text(), max_size=4), st.lists(st.text(), max_size=3))
def test_equal_images_have_equal_digests(env: dict[str, str], packages: list[str]) -> None:
    """The order of a dict does not matter; a way over the wire changes nothing."""
    spec = ImageSpec(env_vars=env, python_packages=tuple(packages))
    turned = ImageSpec(env_vars=dict(reversed(env.items())), python_packages=tuple(packages))
    try:
        encoded = msgspec.json.encode(spec)
    except UnicodeEncodeError:
        return
    assert spec_digest(spec) == spec_digest(turned) == spec_digest(msgspec.json.decode(encoded, type=ImageSpec))


def many(count: int) -> tuple[str, ...]:
    return tuple(f"a{number}" for number in range(count))


@pytest.mark.parametrize(
    ("option", "most", "make"),
    [
        ("volumes", 64, lambda n: QueueConfig(handler="a:f", volumes=tuple(VolumeMount("v", path) for path in many(n)))),
        ("secrets", 256, lambda n: QueueConfig(handler="a:f", secrets=many(n))),
        ("gpu", 16, lambda n: QueueConfig(handler="a:f", gpus=many(n), gpu_count=1)),
        ("env", 1000, lambda n: QueueConfig(handler="a:f", env=dict.fromkeys(many(n), ""))),
        ("retry_for", 1000, lambda n: QueueConfig(handler="a:f", retry_for=many(n))),
        ("python_packages", 1000, lambda n: QueueConfig(handler="a:f", image=ImageSpec(python_packages=many(n)))),
        ("commands", 1000, lambda n: QueueConfig(handler="a:f", image=ImageSpec(commands=many(n)))),
        ("installed", 1000, lambda n: QueueConfig(handler="a:f", image=ImageSpec(commands=("",) * 1000, installed=(0,) * n))),
        ("env_vars", 1000, lambda n: QueueConfig(handler="a:f", image=ImageSpec(env_vars=dict.fromkeys(many(n), "")))),
    ],
)
def test_every_list_of_a_definition_has_an_end(option: str, most: int, make: Callable[[int], QueueConfig]) -> None:
    """Before anything looks at what is in it, for some look at each together with all others."""
    check_config(make(most))
    with pytest.raises(InvalidOption, match=f"^{option} with {most + 1} entries is not allowed. Allowed: at most {most}.$"):
        check_config(make(most + 1))


def test_no_list_of_a_definition_was_forgotten() -> None:
    """Whoever adds one to the struct sets its limit."""
    fields = [*msgspec.structs.fields(QueueConfig), *msgspec.structs.fields(ImageSpec)]
    lists = {field.name for field in fields if get_origin(field.type) in (tuple, dict)}
    assert lists == {"gpus", "env", "secrets", "volumes", "retry_for", "python_packages", "commands", "installed", "env_vars"}


@pytest.mark.parametrize("option", ["env", "secrets"])
def test_the_name_of_a_variable_has_an_end(option: str) -> None:
    """255 characters."""
    make = {"env": lambda name: {name: ""}, "secrets": lambda name: (name,)}[option]
    check_config(QueueConfig(**{"handler": "a:f", option: make("A" * 255)}))
    with pytest.raises(InvalidOption, match=f"{option}='AAA"):
        check_config(QueueConfig(**{"handler": "a:f", option: make("A" * 256)}))


def test_an_error_tells_a_list_by_its_beginning() -> None:
    """The first ten, none of them at length."""
    assert listed(["a", "b"]) == "a, b"
    assert listed([*"0123456789"]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listed(["x" * 500, *"abcdefghijkl"]) == f"{'x' * 200}…, a, b, c, d, e, f, g, h, i and 3 more"
