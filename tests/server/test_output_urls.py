"""The URL of an output is its key: it opens that output until it expires, and what it opens runs in no browser of ours."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest

from treadle.engine.signing import sign_output_url

from .inside import Inside
from .test_links import agent, runner, wanted_container

SCRIPT = b"<script>document.title = 'mine'</script>"


class Saver:
    """A server, and the attempt that saves files there."""

    def __init__(self, server: Inside) -> None:
        self.server = server
        line = agent(server)
        self.task_id = server.submitted("resize")
        container_id, self._token = wanted_container(server, line)
        runner(server, container_id, self._token).hear()

    def save(self, name: str, content: bytes = SCRIPT) -> httpx2.Response:
        query = {"task_id": self.task_id, "attempt": 1, "name": name}
        return self.server.request("PUT", "/v2/outputs", token=self._token, params=query, content=content)

    def url(self, name: str, content: bytes = SCRIPT, seconds: int = 60, now: float | None = None) -> str:
        """The URL, as made at `now`, of a file that is saved here."""
        answer = self.save(name, content)
        assert answer.status_code == 201, answer.text
        made = time.time() if now is None else now
        url = self.server.house.views.output_url(answer.json()["id"], self.server.workspace, made, seconds)
        return url.removeprefix("http://treadle")

    def get(self, url: str) -> httpx2.Response:
        return self.server.request("GET", url, token="")


@pytest.fixture(scope="module")
def saver(shared: Inside) -> Iterator[Saver]:
    yield Saver(shared)


def refused(answer: httpx2.Response) -> bool:
    """Whether it is the one answer that altered, expired and made-up URLs get."""
    return (answer.status_code, answer.json()["error"]) == (400, "invalid output id")


def test_the_url_opens_its_output_without_a_token(saver: Saver) -> None:
    """Whoever has it."""
    assert saver.get(saver.url("a.txt")).content == SCRIPT


def test_no_part_of_it_can_be_altered(saver: Saver) -> None:
    """Neither the end of its time, nor the output, nor the signature; and none can be left out or said twice."""
    url, other = saver.url("a.txt"), saver.url("b.txt")
    parts = urlsplit(url)
    given = {key: value for key, [value] in parse_qs(parts.query).items()}
    expires, signature = int(given["expires"]), given["signature"]
    flipped = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    altered = [
        {"expires": expires + 1}, {"expires": expires - 1}, {"expires": -expires}, {"expires": 2**70}, {"expires": 0},
        {"signature": flipped}, {"signature": signature[:-1]}, {"signature": signature + "0"}, {"signature": ""},
        {"signature": "ä"}, {"signature": sign_output_url("", parts.path.rpartition("/")[2], expires)},
        {"signature": sign_output_url(saver.server.workspace.signing_key, parts.path.rpartition("/")[2], expires)},
    ]  # fmt: skip
    for change in altered:
        query = "&".join(f"{key}={quote(str(value))}" for key, value in (given | change).items())
        assert refused(saver.get(f"{parts.path}?{query}")), change
    for query in (f"expires={expires}", f"signature={signature}", ""):
        assert refused(saver.get(f"{parts.path}?{query}")), query
    for query in (f"expires={expires + 9}&{parts.query}", f"{parts.query}&expires={expires + 9}"):
        assert saver.get(f"{parts.path}?{query}").content in (SCRIPT, saver.get(f"{parts.path}?").content)
    assert refused(saver.get(f"{urlsplit(other).path}?{parts.query}"))
    for path in (parts.path.upper(), parts.path + "/../x", parts.path + "%00", "/output/id/x", "/output/id/%2e%2e"):
        assert saver.get(f"{path}?{parts.query}").status_code in (400, 404)
    assert saver.get(url).content == SCRIPT


def test_it_does_not_open_after_its_time(saver: Saver) -> None:
    """Said in the same words as of one that never was good: whoever guesses learns nothing."""
    now = time.time()
    assert refused(saver.get(saver.url("a.txt", seconds=60, now=now - 61)))
    assert saver.get(saver.url("a.txt", seconds=60, now=now - 30)).status_code == 200


@pytest.mark.parametrize("expires", ["0", "-1", "604801", "1e9", "x", "9" * 30])
def test_nobody_gets_one_for_ever(saver: Saver, expires: str) -> None:
    """Seven days at most."""
    output_id = saver.save("a.txt").json()["id"]
    assert saver.server.request("GET", f"/v2/outputs/{output_id}/url?expires={expires}").status_code == 400


@pytest.mark.parametrize(
    "name",
    ["a.html", "a.htm", "a.xhtml", "a.svg", "a.svgz", "a.xml", "a.js", "a.mjs", "a.css", "a.swf", "a.mht", "a", "a.html.gz",
     "a.HTML", "data:text", "a.png.html", "<img src=x>.html", "text"],
)  # fmt: skip
def test_what_could_run_is_a_download(saver: Saver, name: str) -> None:
    """A page that a task saved is not a page of ours."""
    answer = saver.get(saver.url(name))
    kind = answer.headers["content-type"]
    assert answer.headers["content-disposition"].startswith("attachment;") or kind.startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.txt", "a.pdf"])
def test_pictures_and_texts_are_shown_as_what_they_are_called(saver: Saver, name: str) -> None:
    """HTML inside of them is none: nothing is sniffed, and but for PDF all is in a sandbox."""
    answer = saver.get(saver.url(name))
    assert answer.headers["content-disposition"].startswith("inline;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ("sandbox" in answer.headers.get("content-security-policy", "")) == (name != "a.pdf")


@pytest.mark.parametrize("name", ["a\r\nset-cookie: x=1", "a\nb", "a\x00", "a\x1b[2J", "\x7f", "a/b", "..", "a\\b", "\u2028.txt", "\x85.txt", "\u202egnp.exe"])
def test_a_name_that_would_forge_a_header_is_refused(saver: Saver, name: str) -> None:
    """When it is saved already."""
    assert saver.save(name).status_code == 400


@pytest.mark.parametrize("name", ['a"; filename="b.exe', "a;b", "ä ß.txt", "%0d%0a.txt", "a'b"])
def test_a_name_stays_one_parameter_of_its_header(saver: Saver, name: str) -> None:
    """Whatever is special in it is percent-encoded (RFC 8187)."""
    told = saver.get(saver.url(name)).headers["content-disposition"]
    assert re.fullmatch(r"(inline|attachment); filename\*=UTF-8''[A-Za-z0-9._~%-]+", told)
    assert told.endswith(quote(name, safe=""))
