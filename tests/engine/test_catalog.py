"""Versions, drafts and what they are made from."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from treadle.engine.catalog import Deploy, NewDeployment, NewSource, open_workspace
from treadle.engine.tokens import add_token, token_hash
from treadle.model.container import Role, Token
from treadle.model.deployment import DeploymentKind, Image, ImageSpec, QueueConfig, spec_digest
from treadle.model.errors import InvalidInput, NoSpace, NotFound

from .making import IMAGE, NOW, SOURCE, WORKSPACE, Desk

CONFIG = QueueConfig(handler="app:f")


def deploy(
    desk: Desk,
    new_id: str,
    name: str,
    *,
    config: QueueConfig = CONFIG,
    source_id: str = SOURCE,
    image_id: str = IMAGE.id,
) -> NewDeployment:
    verb = Deploy(new_id, desk.workspace.id, name, config, source_id, image_id)
    made: NewDeployment = desk.ask(desk.engine.switch.deploy, verb)
    return made


def test_versions_of_a_name_count_from_one(desk: Desk) -> None:
    """Also when nothing has changed, and each name for itself; old ones stay."""
    made = [deploy(desk, f"d{n}", name) for n, name in enumerate(["a", "a", "b", "a"])]
    assert [(m.deployment.name, m.deployment.version, m.created) for m in made] == [
        ("a", 1, True), ("a", 2, True), ("b", 1, True), ("a", 3, True),
    ]  # fmt: skip
    assert all(m.deployment.kind is DeploymentKind.DEPLOYMENT and m.deployment.active for m in made)
    first = desk.store.deployment_version(desk.workspace.id, "a", 1)
    assert first == made[0].deployment


def test_versions_deployed_at_once_differ(desk: Desk) -> None:
    """In one batch too."""
    verbs = [Deploy(f"d{n}", desk.workspace.id, "a", CONFIG, SOURCE, IMAGE.id) for n in range(3)]
    made = desk.run(*((desk.engine.switch.deploy, verb) for verb in verbs))
    assert [m.deployment.version for m in made] == [1, 2, 3]


def test_an_equal_draft_is_used_again(desk: Desk) -> None:
    """Definition, source and image make a draft; it has neither name nor version."""
    first, again = deploy(desk, "d1", ""), deploy(desk, "d2", "")
    assert (first.created, again.created) == (True, False)
    assert again.deployment == first.deployment
    assert (first.deployment.kind, first.deployment.version) == (DeploymentKind.DRAFT, 0)
    other = deploy(desk, "d3", "", config=QueueConfig(handler="app:f", retries=1))
    assert other.created
    assert other.deployment.id == "d3"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"source_id": "f" * 64}, "was never uploaded"),
        ({"image_id": "unknown"}, "was never built"),
        ({"config": QueueConfig(handler="app:f", secrets=("KEY",))}, "Secret does not exist: KEY"),
    ],
)
def test_every_part_must_be_there(desk: Desk, part: dict[str, str], message: str) -> None:
    """What is missing is named with the way to get it, and nothing is written."""
    with pytest.raises(InvalidInput, match=message) as error:
        deploy(desk, "d1", "a", **part)  # type: ignore[arg-type]
    assert error.value.advice
    assert desk.store.deployments(desk.workspace.id) == []


def test_sources_belong_to_their_workspace(desk: Desk) -> None:
    """One that another workspace has uploaded was never uploaded here."""
    source_id = "1" * 64
    desk.ask(desk.engine.catalog.add_source, NewSource(desk.workspace.id + 1, source_id, 5))
    with pytest.raises(InvalidInput):
        deploy(desk, "d1", "a", source_id=source_id)
    for _ in range(2):
        desk.ask(desk.engine.catalog.add_source, NewSource(desk.workspace.id, source_id, 5))
    assert deploy(desk, "d1", "a", source_id=source_id).created


def test_an_image_is_remembered_by_what_was_asked(desk: Desk) -> None:
    """The next build of the same spec finds it; its time is that of the commit."""
    spec = ImageSpec(python_packages=("numpy",))
    desk.now = NOW + 3
    image = Image("image-2", spec_digest(spec), spec, "3.11.7", "numpy==2.0")
    desk.ask(desk.engine.catalog.put_image, image)
    found = desk.store.image(spec_digest(spec))
    assert found is not None
    assert (found.id, found.lock, found.created_at) == ("image-2", "numpy==2.0", NOW + 3)
    assert desk.engine.catalog.image("image-2") == found


def test_what_does_not_exist_is_not_found(desk: Desk) -> None:
    """By its id."""
    for look in (desk.engine.catalog.deployment, desk.engine.catalog.image):
        with pytest.raises(NotFound, match="nothing-here"):
            look("nothing-here")


def test_a_deployment_that_was_rolled_back_is_not_remembered(desk: Desk) -> None:
    """Its version is free for the next."""
    desk.store.broken = 1
    verb = Deploy("d1", desk.workspace.id, "a", CONFIG, SOURCE, IMAGE.id)
    assert isinstance(desk.run((desk.engine.switch.deploy, verb))[0], NoSpace)
    with pytest.raises(NotFound):
        desk.engine.catalog.deployment("d1")
    assert deploy(desk, "d2", "a").deployment.version == 1


def test_what_was_read_in_a_transaction_that_was_rolled_back_is_not_remembered(desk: Desk) -> None:
    """It may have been written there too."""
    catalog = desk.engine.catalog
    image = msgspec.structs.replace(IMAGE, id="image-2", spec_digest="other")

    def look(_now: float, requests: Sequence[None]) -> list[tuple[str, str]]:
        return [(catalog.deployment("d1").id, catalog.image("image-2").id) for _ in requests]

    desk.store.broken = 1
    verb = Deploy("d1", desk.workspace.id, "a", CONFIG, SOURCE, IMAGE.id)
    desk.run((desk.engine.switch.deploy, verb), (catalog.put_image, image), (look, None))
    for forgotten, row_id in ((catalog.deployment, "d1"), (catalog.image, "image-2")):
        with pytest.raises(NotFound):
            forgotten(row_id)


def test_a_workspace_is_made_once(desk: Desk) -> None:
    """The next start finds it, with its keys."""
    assert open_workspace(desk.store, WORKSPACE) == desk.workspace


def test_a_token_is_stored_hashed(desk: Desk) -> None:
    """What is stored opens nothing."""
    token = "t" * 64
    add_token(desk.store, Token("1", desk.workspace.id, token_hash(token), Role.SUBMIT, True, NOW))
    assert desk.store.token(token) is None
    found = desk.store.token(token_hash(token))
    assert found is not None
    assert found.role is Role.SUBMIT
    assert token not in repr(found)
