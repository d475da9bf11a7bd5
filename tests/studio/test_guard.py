"""Who may talk to a studio: Host, Origin, token and cookie, for plain requests and the WebSocket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from catgan.studio.guard import POLICY, Guard, is_loopback

TOKEN = "correct-horse-battery"
NAME = Guard(PlainTextResponse("never"), "0.0.0.0", TOKEN).cookie


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("page")


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("open")
    await websocket.close()


def guarded(host: str, token: str | None) -> Starlette:
    return Starlette(
        routes=[Route("/", page, methods=["GET", "POST"]), WebSocketRoute("/pictures", echo)],
        middleware=[Middleware(Guard, host=host, token=token)],
    )


@pytest.fixture
def local() -> Iterator[TestClient]:
    """Of this machine alone, without a token."""
    with TestClient(guarded("127.0.0.1", None), "http://127.0.0.1:7860", follow_redirects=False) as client:
        yield client


@pytest.fixture
def shared() -> Iterator[TestClient]:
    """At every address, with a token."""
    with TestClient(guarded("0.0.0.0", TOKEN), "http://192.168.0.7:7860", follow_redirects=False) as client:
        yield client


def opens(client: TestClient, **headers: str) -> bool:
    address = f"ws://{client.base_url.netloc.decode()}/pictures"
    with contextlib.suppress(WebSocketDisconnect), client.websocket_connect(address, headers=headers) as socket:
        return socket.receive_text() == "open"
    return False


def test_addresses_of_this_machine_alone_are_told_from_others() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(
        map(is_loopback, ("0.0.0.0", "::", "192.168.0.7", "localhost.evil.example", "evil.example", "", "127.1"))
    )


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "127.0.0.1"])
def test_this_machines_own_names_are_let_in(local: TestClient, host: str) -> None:
    assert local.get("/", headers={"Host": host}).text == "page"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.0.7:7860",
        "",
        "[::1",
        "a@b",
        "[x]:1",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(local: TestClient, host: str) -> None:
    """DNS rebinding: the browser sends the attacker's name as Host, and his page as Origin."""
    assert local.get("/", headers={"Host": host}).status_code == 400
    assert not opens(local, Host=host, Origin=f"http://{host}")


@pytest.mark.parametrize(
    "origin",
    [
        None, "null", "", "http://evil.example", "http://127.0.0.1:7861", "http://127.0.0.1", "http://localhost:7860",
        "http://127.0.0.1:7860.evil.example", "http://[::1", "http://user@127.0.0.1:7860", "127.0.0.1:7860",
    ],
)  # fmt: skip
def test_only_the_studios_own_page_may_ask(local: TestClient, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin}
    assert local.post("/", headers=headers).status_code == 403
    assert not opens(local, **headers)


def test_the_own_page_may_ask(local: TestClient) -> None:
    for host in ("127.0.0.1:7860", "localhost:7860", "[::1]:7860"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert local.post("/", headers=headers).text == "page"
        assert opens(local, **headers)


def test_answers_say_what_browsers_may_do_with_them_and_refusals_too(local: TestClient) -> None:
    for answer in (local.get("/"), local.get("/nothing"), local.get("/", headers={"Host": "evil.example"})):
        assert POLICY.items() <= {k: answer.headers[k] for k in POLICY}.items()


def test_without_the_token_nothing_is_to_be_had(shared: TestClient) -> None:
    for path in ("/", "/?token=", "/?token=wrong", f"/?token={TOKEN}x", "/?token=%ff%00", f"/?tok={TOKEN}"):
        assert shared.get(path).status_code == 401
    own = "http://192.168.0.7:7860"
    assert shared.post("/", headers={"Origin": own}).status_code == 401
    assert not opens(shared, Origin=own)
    assert not opens(shared, Origin=own, Cookie=f"{NAME}=wrong")
    for cookie in ("", "wrong", TOKEN[:-1], "\xe9"):
        assert shared.get("/", headers={"Cookie": f"{NAME}={cookie}".encode("latin-1")}).status_code == 401


def test_the_token_becomes_a_cookie_and_leaves_the_address(shared: TestClient) -> None:
    answer = shared.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"httponly", "samesite=lax"} <= {p.strip().lower() for p in answer.headers["set-cookie"].split(";")}
    assert shared.get("/").text == "page"
    own = "http://192.168.0.7:7860"
    known = {"Cookie": f"{NAME}={TOKEN}"}
    assert opens(shared, Origin=own, **known)
    assert shared.post("/", headers={"Origin": own}).text == "page"
    assert not opens(shared, Origin="http://evil.example", **known)  # a cookie alone is not enough


def test_with_a_token_addresses_and_the_machines_name_are_known_and_other_names_are_not(shared: TestClient) -> None:
    for host in ("10.0.0.1:7860", "[fe80::1]:7860", socket.gethostname(), "localhost"):
        assert shared.get("/", headers={"Host": host, "Cookie": f"{NAME}={TOKEN}"}).text == "page"
    assert shared.get("/", headers={"Host": "evil.example", "Cookie": f"{NAME}={TOKEN}"}).status_code == 400


def test_a_name_to_listen_at_is_known_however_it_is_written() -> None:
    with TestClient(guarded("Studio.Example", TOKEN), "http://studio.example") as client:
        assert client.get("/", headers={"Cookie": f"{NAME}={TOKEN}"}).text == "page"


def test_two_studios_on_one_host_keep_their_visitors() -> None:
    """A browser sends a host's cookies to all of its ports."""
    cookies = {}
    for token in (TOKEN, "another-token"):
        with TestClient(guarded("0.0.0.0", token), "http://192.168.0.7:7860", follow_redirects=False) as client:
            name, value = client.get(f"/?token={token}").headers["set-cookie"].split(";")[0].split("=")
            cookies[name] = value
    both = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    for token in (TOKEN, "another-token"):
        with TestClient(guarded("0.0.0.0", token), "http://192.168.0.7:7861") as client:
            assert client.get("/", headers=both).text == "page"
            assert client.get("/").status_code == 401


def test_a_page_whose_name_is_no_files_is_not_there(local: TestClient) -> None:
    answer = local.get("/a%00b")
    assert (answer.status_code, answer.text) == (404, "there is no such page\n")
