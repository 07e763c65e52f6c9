"""Settings: flag, then environment, then config.toml, then credentials.toml, then default."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.model.errors import InvalidInput
from treadle.model.settings import Settings, load


def _write(data: Path, config: str = "", credentials: str = "") -> None:
    (data / "config.toml").write_text(config)
    (data / "credentials.toml").write_text(credentials)


def test_nothing_given_means_the_defaults(tmp_path: Path) -> None:
    """Without flags, variables and files there are the documented defaults."""
    settings = load(environ={"TREADLE_DATA": str(tmp_path / "none")})
    assert settings == Settings(
        data=tmp_path / "none", host="127.0.0.1", port=1994, url="http://127.0.0.1:1994", token="", grace=30,
        max_body=16 * 1024 * 1024, allow_private_webhooks=False, allow_loopback_webhooks=False, url_configured=False,
    )  # fmt: skip


def test_the_data_folder_is_in_the_home_folder_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing said: ~/.treadle."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(environ={}).data == tmp_path / ".treadle"


def test_a_relative_data_folder_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server started in the background has another working directory."""
    monkeypatch.chdir(tmp_path)
    assert load(data="here", environ={}).data == tmp_path / "here"


LAYERS = ["flag", "environment", "config", "credentials", "default"]


@pytest.mark.parametrize("highest", range(5))
def test_the_highest_layer_wins(tmp_path: Path, highest: int) -> None:
    """With all layers from `highest` down present, that one is used for URL and token."""
    given = LAYERS[highest:]
    _write(
        tmp_path,
        'url = "http://config:1"\ntoken = "config"' if "config" in given else "",
        'url = "http://credentials:1"\nworkspace = "default"\ntoken = "credentials"' if "credentials" in given else "",
    )
    environ = {"TREADLE_URL": "http://environment:1", "TREADLE_TOKEN": "environment"} if "environment" in given else {}
    flags = {"url": "http://flag:1", "token": "flag"} if "flag" in given else {}
    settings = load(data=tmp_path, environ=environ, **flags)  # type: ignore[arg-type]
    word = LAYERS[highest]
    assert settings.url == ("http://127.0.0.1:1994" if word == "default" else f"http://{word}:1")
    assert settings.token == ("" if word == "default" else word)
    assert settings.url_configured == (word in ("flag", "environment", "config"))


def test_the_config_file_sets_everything(tmp_path: Path) -> None:
    """Each documented key is taken."""
    _write(
        tmp_path,
        'host = "0.0.0.0"\nport = 2000\ngrace = 1.5\nmax_body = 1024\nallow_private_webhooks = true\nallow_loopback_webhooks = true\ntoken = "x"',
    )
    settings = load(data=tmp_path, environ={})
    assert (settings.host, settings.port, settings.grace, settings.max_body) == ("0.0.0.0", 2000, 1.5, 1024)
    assert settings.allow_private_webhooks
    assert settings.allow_loopback_webhooks
    assert settings.token == "x"
    assert settings.url == "http://127.0.0.1:2000"
    assert not settings.url_configured


def test_a_flag_for_the_port_moves_the_url(tmp_path: Path) -> None:
    """A server started on another port than the last one is found there."""
    _write(tmp_path, "", 'url = "http://127.0.0.1:1994"\nworkspace = "w"\ntoken = "t"')
    assert load(data=tmp_path, port=3000, environ={}).url == "http://127.0.0.1:3000"


def test_a_configured_url_of_this_machine_says_where_to_listen(tmp_path: Path) -> None:
    """TREADLE_URL on loopback sets host and port of `treadle up`, unless flags do."""
    environ = {"TREADLE_URL": "http://127.0.0.1:2994/"}
    settings = load(data=tmp_path, environ=environ)
    assert (settings.host, settings.port, settings.url) == ("127.0.0.1", 2994, "http://127.0.0.1:2994")
    assert load(data=tmp_path, environ=environ, port=5).port == 5
    assert load(data=tmp_path, environ={"TREADLE_URL": "https://queues.example.com"}).port == 1994


@pytest.mark.parametrize(
    ("line", "key", "allowed"),
    [
        ("port = 70000", "port=70000", "0 to 65535"),
        ('port = "80"', "port='80'", "whole number"),
        ("port = true", "port=True", "whole number"),
        ("port = 80.5", "port=80.5", "whole number"),
        ("grace = -1", "grace=-1", "seconds"),
        ("grace = nan", "grace=nan", "seconds"),
        ("max_body = 0", "max_body=0", "bytes"),
        ('allow_private_webhooks = "yes"', "allow_private_webhooks='yes'", "true or false"),
        ('url = "localhost:1994"', "url='localhost:1994'", "http://"),
        ('url = "http://host:port"', "url='http://host:port'", "http://"),
        ('host = ""', "host=''", "host name"),
        ("token = 1", "token=1", "token"),
        ("prot = 80", "prot=80", "host, port, url"),
    ],
)
def test_a_wrong_value_names_file_key_value_and_what_is_allowed(
    tmp_path: Path, line: str, key: str, allowed: str
) -> None:
    """Whoever reads the error can correct the file without the manual."""
    _write(tmp_path, line)
    with pytest.raises(InvalidInput) as caught:
        load(data=tmp_path, environ={})
    assert f"{tmp_path / 'config.toml'}: {key}" in str(caught.value)
    assert allowed in str(caught.value)


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    """The variable is named, not the key behind it."""
    with pytest.raises(InvalidInput, match="TREADLE_URL='nowhere'"):
        load(data=tmp_path, environ={"TREADLE_URL": "nowhere"})


def test_a_wrong_flag_is_named(tmp_path: Path) -> None:
    """Flags are checked like everything else."""
    with pytest.raises(InvalidInput, match="--port=-1"):
        load(data=tmp_path, port=-1, environ={})


@pytest.mark.parametrize("name", ["config.toml", "credentials.toml"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, name: str) -> None:
    """A broken file is an error with its path, not a default in silence."""
    (tmp_path / name).write_text("port = = 1")
    with pytest.raises(InvalidInput, match=name):
        load(data=tmp_path, environ={})


def test_damaged_credentials_are_named(tmp_path: Path) -> None:
    """A token that is no text is refused."""
    _write(tmp_path, "", "token = 5")
    with pytest.raises(InvalidInput, match=r"credentials\.toml is damaged"):
        load(data=tmp_path, environ={})


def test_an_ipv6_address_is_bracketed_in_the_url(tmp_path: Path) -> None:
    """`::1` is reached at http://[::1]:PORT."""
    assert load(data=tmp_path, host="::1", environ={}).url == "http://[::1]:1994"
