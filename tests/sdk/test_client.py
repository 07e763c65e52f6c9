"""The client keeps connections, never enqueues twice, and turns answers into typed values and errors."""

from __future__ import annotations

import socket
import tempfile
import threading
import traceback
from collections.abc import Iterator
from io import BytesIO

import pytest

from sdk.peer import TOKEN, Peer
from treadle.client import Client
from treadle.model.api import DeployRequest
from treadle.model.deployment import ImageSpec, QueueConfig
from treadle.model.errors import (
    BY_CODE,
    Forbidden,
    InvalidInput,
    NotFound,
    QueueFull,
    TooLarge,
    TreadleError,
    Unauthorized,
    Unreachable,
)


def test_requests_of_one_thread_share_a_connection(client: Client, peer: Peer) -> None:
    """Ten requests in a row use one connection."""
    for _ in range(10):
        client.enqueue("thumbs", b"{}")
    assert len(peer.connections) == 1


def test_each_thread_has_its_own_connection(client: Client, peer: Peer) -> None:
    """Two threads never write to the same connection."""
    both = threading.Barrier(2)

    def ask() -> None:
        both.wait(5)
        client.enqueue("thumbs", b"{}")
        both.wait(5)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(peer.connections) == 2


def test_an_error_answer_keeps_the_connection(client: Client, peer: Peer) -> None:
    """An error is read to its end, so that the connection can be used again."""
    with pytest.raises(NotFound):
        client.task("no-such-task")
    client.enqueue("thumbs", b"{}")
    assert len(peer.connections) == 1


def test_a_connection_closed_while_idle_is_replaced(client: Client, peer: Peer) -> None:
    """When the server has closed the kept connection, the next request opens another, and is sent once."""
    peer.close_after_answer = True
    for count in range(1, 6):
        client.enqueue("thumbs", b"{}")
        peer.wait_until(lambda count=count: peer.closed >= count)  # type: ignore[misc]
    assert len(peer.paths("POST")) == 5
    assert len(peer.connections) == 5


def test_an_enqueue_is_not_sent_twice_when_the_connection_breaks(client: Client, peer: Peer) -> None:
    """A submit that may have been accepted is never repeated; the error says so."""
    client.enqueue("thumbs", b"{}")
    peer.hang_up = 1
    with pytest.raises(Unreachable, match=r"may have been accepted.*treadle task list"):
        client.enqueue("thumbs", b"{}")
    assert len(peer.paths("POST")) == 2


def test_a_new_version_is_not_made_twice_when_the_connection_breaks(client: Client, peer: Peer) -> None:
    """Deploying a name again would make another version, so it is not repeated either."""
    client.health()
    peer.hang_up = 1
    with pytest.raises(Unreachable):
        client.deploy(DeployRequest("thumbs", QueueConfig(handler="app:f"), "s", "i"))
    assert len(peer.paths("POST")) == 1


def test_a_question_is_asked_again_when_the_kept_connection_breaks(client: Client, peer: Peer) -> None:
    """A request that changes nothing is repeated once on a new connection."""
    task_id = client.enqueue("thumbs", b"{}")
    peer.hang_up = 1
    assert client.task(task_id).id == task_id


def test_a_question_is_not_asked_for_ever(client: Client, peer: Peer) -> None:
    """When a new connection breaks as well, the client gives up."""
    client.health()
    peer.hang_up = 9
    with pytest.raises(Unreachable):
        client.health()
    assert peer.hang_up == 7


def test_no_server_says_how_to_start_one() -> None:
    """Nobody listening is told with the URL and `treadle up`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(Unreachable, match=rf"{url}.*refused.*treadle up"):
            Client(url).health()


def test_an_error_of_the_client_shows_no_other_before_it() -> None:
    """The message has what the socket's error said; a script that ends with it prints one traceback."""
    with pytest.raises(Unreachable) as caught:
        Client("http://127.0.0.1:9").health()
    assert "direct cause" not in "".join(traceback.format_exception(caught.value))
    assert "During handling" not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_does_not_answer_is_given_up() -> None:
    """A peer that accepts and says nothing ends in an error that names the time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)
        with pytest.raises(Unreachable, match=r"within 0\.05 s"):
            client.health()


def test_an_enqueue_that_nobody_answers_in_time_may_have_been_accepted() -> None:
    """A submit that went out whole is not repeated, and the error says what to look at."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)
        with pytest.raises(Unreachable, match=r"within 0\.05 s.*may have been accepted.*treadle task list"):
            client.enqueue("thumbs", b"{}")


@pytest.mark.parametrize("token", ["two words", "line\r\nX-Role: admin", "schlüssel"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    """Nothing in a token can end its header."""
    with pytest.raises(InvalidInput, match="TREADLE_TOKEN"):
        Client("http://127.0.0.1:1994", token)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:1994", "ftp://host", "http://", "http://a:b", "http://h:99999", "http://a b", "http://[::1"],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """The client wants an http(s) URL with a host."""
    with pytest.raises(InvalidInput, match="TREADLE_URL"):
        Client(url)


@pytest.mark.parametrize("kind", BY_CODE.values())
def test_an_error_of_the_server_is_raised_as_its_class(
    client: Client, peer: Peer, kind: type[TreadleError]
) -> None:
    """Code, message and advice survive the way over HTTP."""
    peer.refuse = kind("It did not work.", "Try this.")
    with pytest.raises(kind) as caught:
        client.enqueue("thumbs", b"{}")
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.advice) == ("It did not work.", "Try this.")


def test_a_wrong_token_is_unauthorized(peer: Peer) -> None:
    """The server's advice is kept."""
    with pytest.raises(Unauthorized, match="TREADLE_TOKEN"):
        Client(peer.url, "wrong").workspace()


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[bytes]]]:
    """A server that is not ours: it answers with the bytes put into the list."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answers[0])

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", answers
        thread.join()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (b"401 No", Unauthorized),
        (b"403 No", Forbidden),
        (b"404 No", NotFound),
        (b"413 No", TooLarge),
        (b"429 No", QueueFull),
    ],
)
def test_a_foreign_error_is_told_by_its_status(
    stranger: tuple[str, list[bytes]], status: bytes, kind: type[TreadleError]
) -> None:
    """An answer without our error body, e.g. of a proxy, still gets the right class."""
    url, answers = stranger
    answers.append(b"HTTP/1.1 " + status + b"\r\nContent-Length: 3\r\n\r\nno!")
    with pytest.raises(kind, match=status[:3].decode()):
        Client(url).health()


def test_a_foreign_answer_asks_for_the_right_url(stranger: tuple[str, list[bytes]]) -> None:
    """A page that is not JSON is not taken for an answer."""
    url, answers = stranger
    answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
    with pytest.raises(TreadleError, match="TREADLE_URL"):
        Client(url).health()


def test_what_is_no_http_is_unreachable(stranger: tuple[str, list[bytes]]) -> None:
    """A port on which something else speaks is told like a missing server."""
    url, answers = stranger
    answers.append(b"SSH-2.0-OpenSSH\r\n")
    with pytest.raises(Unreachable):
        Client(url).health()


def test_an_answer_cut_short_is_told(stranger: tuple[str, list[bytes]]) -> None:
    """A connection that ends in the middle of an answer is not a success."""
    url, answers = stranger
    answers.append(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"status"')
    with pytest.raises(Unreachable, match="in the middle"):
        Client(url).health()


def test_a_refusal_before_the_end_of_an_upload_is_read(stranger: tuple[str, list[bytes]]) -> None:
    """A server that answers 413 and closes while the file is still being sent is understood."""
    url, answers = stranger
    answers.append(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    with tempfile.TemporaryFile() as file:
        file.truncate(64 * 1024 * 1024)
        with pytest.raises((TooLarge, Unreachable)):
            Client(url).put_source("a" * 64, file)


def test_source_goes_up_and_comes_down_unchanged(client: Client, peer: Peer) -> None:
    """Files are streamed in both directions without a change."""
    content = bytes(range(256)) * 4096
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        assert not client.has_source("abc")
        client.put_source("abc", file)
    back = BytesIO()
    client.get_source("abc", back)
    assert client.has_source("abc")
    assert back.getvalue() == content
    assert len(peer.connections) == 1


def test_an_upload_is_sent_again_from_its_start(client: Client, peer: Peer) -> None:
    """When a kept connection breaks under an upload, all of the file is sent again."""
    client.health()
    peer.hang_up = 1
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 1000)
        file.seek(0)
        client.put_source("abc", file)
    assert peer.sources["abc"] == b"x" * 1000


def test_build_events_come_one_by_one(client: Client) -> None:
    """Each JSON line of a build is an event, the last one with the image."""
    events = list(client.build_image(ImageSpec(python_packages=("pillow",))))
    assert [event.log for event in events] == ["installing", ""]
    assert events[-1].image_id == "image-1"


def test_an_abandoned_stream_does_not_disturb_the_next_request(client: Client) -> None:
    """A build that nobody reads to its end leaves the client usable."""
    next(client.build_image(ImageSpec()))
    assert client.health().status == "ok"


def test_a_wait_is_bounded_by_what_the_server_allows(client: Client, peer: Peer) -> None:
    """At most 60 seconds are asked for in one request; no wait is not mentioned at all."""
    peer.hang_up = 2
    for wait in (1e9, 0):
        with pytest.raises(Unreachable):
            client.task("task-1", wait=wait)
    assert peer.paths("GET") == ["/v2/task/task-1/?wait=60", "/v2/task/task-1/"]


def test_names_are_quoted_in_paths(client: Client, peer: Peer) -> None:
    """An id with a slash or a space cannot reach another route."""
    with pytest.raises(NotFound):
        client.task("../workspace?x")
    assert peer.paths("GET") == ["/v2/task/..%2Fworkspace%3Fx/"]


def test_lists_are_filtered_and_paged(client: Client, peer: Peer) -> None:
    """Filters go into the query, empty ones do not; the cursor leads to the next page."""
    for _ in range(3):
        client.enqueue("thumbs", b"{}")
    first = client.tasks(2, statuses=["PENDING", "RUNNING"])
    second = client.tasks(2, first.next)
    assert [view.id for view in first.data + second.data] == ["task-3", "task-2", "task-1"]
    assert second.next == ""
    assert peer.paths("GET")[0] == "/v2/task/?limit=2&status=PENDING%2CRUNNING"


def test_the_other_routes_answer_typed(client: Client) -> None:
    """Cancel, workspace, signing key, outputs."""
    task_id = client.enqueue("id/abc", b"{}")
    assert client.cancel([task_id, "other"]) == [task_id]
    assert client.workspace().name == "default"
    assert client.signing_key() == "sk_secret"
    with tempfile.TemporaryFile() as file:
        file.write(b"png")
        file.seek(0)
        saved = client.save_output(task_id, 1, "a b.png", file)
    assert (saved.name, saved.size) == ("a b.png", 3)
    assert client.output_url(saved.id, 60).endswith("expires=60")


def test_a_url_with_a_path_keeps_it(peer: Peer) -> None:
    """Behind a proxy the server may live under a path."""
    with pytest.raises(NotFound):
        Client(f"{peer.url}/queues/", TOKEN).workspace()
    assert peer.paths("GET") == ["/queues/v2/workspace"]
