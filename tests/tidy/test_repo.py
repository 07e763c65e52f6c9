"""What may be in the repository: nothing that ties it to one place, and locks that hold."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib

import pytest

from tidy.reading import ROOT

# Hosts that serve packages or images; whoever installs chooses his own. Written in halves: this file is read too.
REGISTRY_HOSTS = tuple(
    "".join(halves)
    for halves in (
        ("pypi", ".org"), ("pythonhosted", ".org"), ("artifactory", "."), ("jfrog", ".io"), ("nexus", "."),
        ("registry.npm", "js"), ("conda.ana", "conda"), ("devpi", "."), ("index-url", " http"), ("index-url", "=http"),
    )
)  # fmt: skip


def _tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.process
def test_no_tracked_file_names_a_registry() -> None:
    """No package index or mirror is written into the repository."""
    for name in _tracked():
        text = (ROOT / name).read_bytes().decode(errors="replace").lower()
        named = [host for host in REGISTRY_HOSTS if host in text]
        assert not named, f"{name} names {', '.join(named)}"


def test_every_locked_package_has_a_version_and_hashes() -> None:
    """requirements.lock pins each package to one version and its hashes, and sets no options."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[a-zA-Z0-9._-]+(\[[a-z0-9,_-]+\])?==[^ ]+ ", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]


def test_the_lock_covers_every_dependency() -> None:
    """What pyproject.toml asks for, for running and for developing, is in the lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    locked = set(re.findall(r"^([a-z0-9._-]+)", (ROOT / "requirements.lock").read_text().lower(), re.MULTILINE))
    names = {re.split(r"[^a-zA-Z0-9._-]", one)[0].lower().replace("_", "-") for one in wanted}
    assert names <= {name.replace("_", "-") for name in locked}


def test_the_check_of_changes_can_be_run() -> None:
    """`.ci/run` exists, is executable, and runs the checks and all tests."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert {"make check", "make test"} <= set(script.read_text().splitlines())


def test_every_verb_of_the_makefile_is_explained() -> None:
    """`make help` shows each target, because each has a `##` comment."""
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    for verb in phony[1].split():
        assert re.search(rf"^{verb}:.*## \w", text, re.MULTILINE), f"make {verb} has no explanation"


def test_the_two_commands_are_in_the_readme() -> None:
    """The README names `make demo` and `make test`."""
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme
