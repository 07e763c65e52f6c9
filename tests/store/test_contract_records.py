"""What every store must do with deployments, images, sources, containers, deliveries, workspaces and tokens."""

from __future__ import annotations

import msgspec
import pytest

from treadle.model.container import ContainerStatus, Role, Token, Workspace
from treadle.model.deployment import Deployment, Image, ImageSpec, ImageUse
from treadle.model.errors import Conflict
from treadle.model.task import Delivery, DeliveryStatus, TaskStatus
from treadle.store.base import Reader, Store

from .making import NOW, URL, claim, container, deployment, ended, insert, task


def delivery(number: int, **fields: object) -> Delivery:
    return msgspec.structs.replace(
        Delivery(f"msg_{number}", str(number), URL, DeliveryStatus.PENDING, NOW, NOW + number), **fields
    )


def deploy(store: Store, *deployments: Deployment) -> None:
    with store.transaction():
        for each in deployments:
            store.insert_deployment(each)


# deployments


def test_a_deployment_is_read_as_it_was_inserted(store: Store, reader: Reader) -> None:
    """Every field comes back, the configuration whole."""
    made = deployment("d", name="cats", version=1, active=False, updated_at=NOW + 1)
    deploy(store, made)

    assert reader.deployment("d") == made
    assert reader.deployment("x") is None


def test_deployments_lists_the_named_newest_first(store: Store, reader: Reader) -> None:
    """Drafts and other workspaces are left out; a name asks for its versions only, highest first."""
    deploy(
        store,
        deployment("d1", name="cats", version=1, created_at=NOW),
        deployment("d2", name="dogs", version=1, created_at=NOW + 1),
        deployment("d10", name="cats", version=10, created_at=NOW + 3),
        deployment("d9", name="cats", version=9, created_at=NOW + 2),
        deployment("draft"),
        deployment("foreign", name="cats", version=1, workspace_id=2),
    )

    assert [each.id for each in reader.deployments(1)] == ["d10", "d9", "d2", "d1"]
    assert [each.id for each in reader.deployments(1, "cats")] == ["d10", "d9", "d1"]
    assert reader.deployments(1, "birds") == []


@pytest.mark.parametrize(("version", "expected"), [(None, "d10"), (9, "d9"), (10, "d10"), (11, None), (0, None)])
def test_a_version_of_a_name(store: Store, version: int | None, expected: str | None) -> None:
    """A number asks for that version, None for the highest; a draft is no version of any name."""
    deploy(
        store,
        deployment("d10", name="cats", version=10),
        deployment("d9", name="cats", version=9),
        deployment("foreign", name="cats", version=11, workspace_id=2),
        deployment("draft"),
    )
    found = store.deployment_version(1, "cats", version)

    assert (found.id if found else None) == expected
    assert store.deployment_version(1, "dogs", version) is None
    assert store.deployment_version(1, "", version) is None


def test_a_version_is_given_once(store: Store) -> None:
    """The same workspace, name and version again is a conflict; another workspace may use them."""
    deploy(store, deployment("d", name="cats", version=1), deployment("e", name="cats", version=1, workspace_id=2))

    with pytest.raises(Conflict):
        deploy(store, deployment("f", name="cats", version=1))
    assert store.deployment("f") is None


def test_a_deployment_is_switched(store: Store, reader: Reader) -> None:
    """Off, on again, and nothing else of it changes."""
    made = deployment("d", name="cats", version=1)
    deploy(store, made)
    for active in (False, True):
        switched = msgspec.structs.replace(made, active=active, updated_at=NOW + 5)
        with store.transaction():
            store.switch_deployment(msgspec.structs.replace(switched, source_id="other", image_id="other"))
        assert reader.deployment("d") == switched


def test_a_deleted_deployment_is_there_for_its_tasks_alone(store: Store, reader: Reader) -> None:
    """It is found by its id; lists and names do not know it, and its version is not given again."""
    one, two = deployment("d1", name="cats", version=1), deployment("d2", name="cats", version=2)
    deploy(store, one, two)
    gone = msgspec.structs.replace(two, active=False, deleted_at=NOW + 5)
    with store.transaction():
        store.switch_deployment(gone)

    assert reader.deployment("d2") == gone
    assert reader.deployments(1) == reader.deployments(1, "cats") == [one]
    assert reader.deployment_version(1, "cats", None) == one
    assert reader.deployment_version(1, "cats", 2) is None
    assert reader.last_version(1, "cats") == 2
    assert reader.last_version(1, "dogs") == 0


def test_a_draft_is_found_by_its_digest(store: Store, reader: Reader) -> None:
    """Equal drafts are one per workspace; a named deployment with that digest is no draft."""
    deploy(
        store,
        deployment("draft", digest="same"),
        deployment("foreign", digest="same", workspace_id=2),
        deployment("named", name="cats", version=1, digest="other"),
    )
    found = reader.draft(1, "same")

    assert found == deployment("draft", digest="same")
    assert reader.draft(1, "other") is None
    with pytest.raises(Conflict):
        deploy(store, deployment("again", digest="same"))


# images, sources


def test_an_image_is_put_by_its_spec(store: Store, reader: Reader) -> None:
    """Putting a spec again replaces the image; it is found by spec and by id."""
    image = Image("i1", "spec", ImageSpec(python_packages=("numpy",)), "3.11.7", "numpy==2 --hash=…", NOW)
    newer = msgspec.structs.replace(image, id="i2", lock="numpy==3", created_at=NOW + 1)
    with store.transaction():
        store.put_image(image)
    assert reader.image("spec") == reader.image_by_id("i1") == image

    with store.transaction():
        store.put_image(newer)
    assert reader.image("spec") == reader.image_by_id("i2") == newer
    assert reader.image_by_id("i1") is None
    assert reader.image("other") is None


def test_two_specs_may_share_an_image(store: Store, reader: Reader) -> None:
    """Specs that resolve to the same image are both found, and the id finds one of them."""
    one = Image("i", "spec 1", ImageSpec(), "3.11.7", "", NOW)
    two = Image("i", "spec 2", ImageSpec(commands=("true",)), "3.11.7", "", NOW + 1)
    with store.transaction():
        store.put_image(one)
        store.put_image(two)

    assert (reader.image("spec 1"), reader.image("spec 2")) == (one, two)
    assert reader.image_by_id("i") in (one, two)


def test_an_image_is_used_by_named_active_deployments(store: Store, reader: Reader) -> None:
    """Drafts and stopped versions do not count; every workspace does."""
    deploy(
        store,
        deployment("b1", "b", 1, image_id="i1"), deployment("b2", "b", 2, image_id="i2", active=False),
        deployment("a3", "a", 3, image_id="i1", workspace_id=2), deployment("draft", image_id="i3"),
    )  # fmt: skip
    assert reader.image_uses() == [ImageUse("i1", 2, "a", 3), ImageUse("i1", 1, "b", 1)]


def test_a_source_is_added_once(store: Store, reader: Reader) -> None:
    """Adding it again is no error; a workspace has only its own."""
    for _ in range(2):
        with store.transaction():
            store.add_source(1, "s", 10, NOW)

    assert reader.has_source(1, "s")
    assert not reader.has_source(2, "s")
    assert not reader.has_source(1, "t")


# containers


def test_a_container_is_replaced_whole(store: Store, reader: Reader) -> None:
    """It is found by id and by its runner's token; an update writes every field."""
    made = container("c")
    with store.transaction():
        store.insert_container(made)
        store.insert_container(container("other"))
    assert reader.container("c") == reader.container_by_token("hash of c") == made

    changed = msgspec.structs.replace(
        made, status=ContainerStatus.STOPPED, started_at=NOW + 1, ended_at=NOW + 2, reason="idle", limits="cgroup2",
        agent_id="agent 2", lease_until=NOW + 20, gpus=("GPU-1", "GPU-2"), stop_by=NOW + 9,
    )  # fmt: skip
    with store.transaction():
        store.update_container(changed)
    assert reader.container("c") == changed
    assert reader.container("other") == container("other")
    assert (reader.container("x"), reader.container_by_token("x")) == (None, None)


def test_live_containers_are_all_but_the_stopped(store: Store) -> None:
    """They come oldest first."""
    with store.transaction():
        for age, status in enumerate((*ContainerStatus, ContainerStatus.RUNNING)):
            store.insert_container(container(f"c{age}", status=status, created_at=NOW - age))

    assert [each.id for each in store.live_containers()] == ["c4", "c2", "c1", "c0"]


# deliveries


def test_due_deliveries_are_pending_and_due(store: Store, reader: Reader) -> None:
    """Oldest due first, at most `limit`; an update writes every field but whose it is."""
    for number in range(4):
        put_delivery(store, delivery(number, due=NOW - number))
    put_delivery(store, delivery(4, due=NOW + 1))
    done = delivery(3, due=NOW + 9, status=DeliveryStatus.DELIVERED, tries=2, last_status=200, delivered_at=NOW)
    failed = delivery(2, status=DeliveryStatus.FAILED, last_error="410 Gone", tries=1, last_status=410)
    with store.transaction():
        store.update_delivery(done)
        store.update_delivery(failed)

    assert [each.id for each in store.due_deliveries(NOW, 9)] == ["msg_1", "msg_0"]
    assert [each.id for each in store.due_deliveries(NOW, 1)] == ["msg_1"]
    assert [reader.deliveries(str(number))[0].id for number in range(5)] == [f"msg_{number}" for number in range(5)]
    assert [reader.deliveries("2"), reader.deliveries("3")] == [[failed], [done]]


def put_delivery(store: Store, wanted: Delivery) -> None:
    """The store makes deliveries in `commit` only: end a task to make one, then set its fields."""
    name = wanted.id.removeprefix("msg_")
    insert(store, task(name, callback_url=URL))
    end = ended(claim(store, name), TaskStatus.FAILED, notify=True)
    with store.transaction():
        store.commit([end])
        store.update_delivery(wanted)


# workspaces, tokens


def test_a_workspace_gets_its_id_from_the_store(store: Store, reader: Reader) -> None:
    """The id given by the caller is ignored; names are unique."""
    made = Workspace(0, "external", "default", "sk_1", "url key", NOW)
    with store.transaction():
        first = store.insert_workspace(made)
        second = store.insert_workspace(msgspec.structs.replace(made, external_id="external 2", name="other"))

    assert first == msgspec.structs.replace(made, id=first.id)
    assert 0 < first.id != second.id
    assert reader.workspace(first.id) == reader.workspace_by_name("default") == first
    assert (reader.workspace(99), reader.workspace_by_name("x")) == (None, None)
    with pytest.raises(Conflict, match="default"), store.transaction():
        store.insert_workspace(msgspec.structs.replace(made, external_id="external 3"))


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("active", [True, False])
def test_a_token_is_found_by_its_hash(store: Store, reader: Reader, role: Role, active: bool) -> None:
    """Whether it is active is for the caller to judge."""
    token = Token("t", 1, "hash", role, active, NOW)
    with store.transaction():
        store.insert_token(token)

    assert reader.token("hash") == token
    assert reader.token("other") is None
    with pytest.raises(Conflict), store.transaction():
        store.insert_token(msgspec.structs.replace(token, id="u"))
