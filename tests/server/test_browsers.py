"""A page in somebody's browser gets nothing out of a server on their machine, nor anything into it.

There is no cookie and no session: only who sends a token is known, and a page of another site has none. That holds
too for a page whose name now leads to 127.0.0.1 (DNS rebinding): to the browser it is the server's own page then, and
still it has no token. So the Host header is not looked at.
"""

from __future__ import annotations

import pytest

from .doors import DOORS, OPEN
from .inside import Inside

EVIL = {"origin": "http://evil.example", "referer": "http://evil.example/page", "sec-fetch-site": "cross-site"}
TELLING = ("access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-headers", "set-cookie",
           "www-authenticate")  # fmt: skip


def asked(server: Inside, method: str, path: str, **headers: str) -> dict[str, str]:
    """The headers of an answer to a page, with the status."""
    work = server._client.request(method, path, headers=EVIL | headers, content=b"{}")
    answer = server.wait(work)
    return dict(answer.headers) | {"status": str(answer.status_code)}


@pytest.mark.parametrize("host", ["treadle", "evil.example", "evil.example:1994", "127.0.0.1.evil.example"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_page_cannot_send_a_form(shared: Inside, host: str, kind: str) -> None:
    """What a browser sends without asking first is refused on every route, under whatever name it came here."""
    for route in DOORS:
        method, path = route.split(" ")
        path = f"{path.replace('{queue}', 'resize')}?{DOORS[route].query}"
        assert asked(shared, method, path, host=host, **{"content-type": kind})["status"] == "401", route
    assert shared.request("GET", "/v2/task").json()["data"] == []


@pytest.mark.parametrize("route", sorted({*DOORS, *OPEN}))
def test_a_browser_is_told_to_keep_it_from_pages(shared: Inside, route: str) -> None:
    """No answer lets a page of another site read it, asks for a password, or leaves a cookie that would be sent again."""
    method, path = route.split(" ")
    asks = {"access-control-request-method": method, "access-control-request-headers": "authorization"}
    for answer in (asked(shared, method, path), asked(shared, "OPTIONS", path, **asks)):
        assert not [name for name in TELLING if name in answer]


@pytest.mark.parametrize("path", ["/", "/<script>alert(1)</script>", "/v2/task/<b>x", "/openapi.json", "/openapi.json/<script>",
                                  "/v2/task?limit=<script>", "/taskqueue/<script>", "/output/id/<script>"])
def test_no_answer_is_a_page_that_data_can_script(shared: Inside, path: str) -> None:
    """Answers are JSON and said to be nothing else; the one page of HTML says nothing of the request."""
    for token in ("", shared.token):
        answer = shared.request("GET", path, token=token)
        assert answer.headers["x-content-type-options"] == "nosniff"
        kind = answer.headers["content-type"]
        assert "json" in kind or (kind.startswith("text/html") and "script" not in answer.text)
