"""The fences in front of page and API, crossed from outside."""

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from dbgpt_lite.guards import BROWSER_COOKIE, MAX_API_BODY_MB, BrowserIdentity, PageHeaders, RequestFence


def make(loopback: bool = True) -> TestClient:
    app = FastAPI()

    @app.get("/")
    def page(request: Request) -> str:
        return request.cookies[BROWSER_COOKIE]

    @app.post("/v1/x")
    async def post(request: Request) -> int:
        return len(await request.body())

    app.add_middleware(BrowserIdentity)
    app.add_middleware(RequestFence, loopback=loopback)
    return TestClient(app, base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:7860", "0.0.0.0"]
)
def test_rebound_host_names_are_refused_on_loopback(host: str) -> None:
    assert make().get("/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=/etc/passwd", "/gradio_api/file=http://192.0.2.1/x", "/file=.env", "/gradio_api/proxy=http://x",
     "/openapi.json", "/monitoring"],
)  # fmt: skip
def test_routes_the_page_does_not_use_are_closed(path: str) -> None:
    assert make().get(path).status_code == 404
    assert make().head(path).status_code == 404


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "localhost"])
def test_own_names_pass(host: str) -> None:
    assert make().get("/", headers={"host": host}).status_code == 200


def test_other_names_pass_when_bound_elsewhere() -> None:
    assert make(loopback=False).get("/", headers={"host": "chat.example"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1.evil.example"]
)
def test_posts_of_other_websites_are_refused(origin: str) -> None:
    assert make().post("/v1/x", headers={"origin": origin}).status_code == 403


def test_own_posts_pass() -> None:
    assert make().post("/v1/x", headers={"origin": "http://127.0.0.1:7860"}, content=b"abc").json() == 3


def test_large_bodies_are_cut_off_even_without_a_length() -> None:
    chunk = b"x" * 2**20
    reply = make().post("/v1/x", content=(chunk for _ in range(MAX_API_BODY_MB + 1)))
    assert reply.status_code == 413


def test_answers_say_what_the_page_may_load() -> None:
    app = FastAPI()

    @app.get("/")
    def page() -> str:
        return "hi"

    app.add_middleware(PageHeaders, policy="default-src 'self'")
    headers = TestClient(app).get("/").headers
    assert headers["content-security-policy"] == "default-src 'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


def test_browser_gets_one_unguessable_cookie() -> None:
    client = make()
    first = client.get("/")
    header = first.headers["set-cookie"]
    assert "HttpOnly" in header
    assert "SameSite=Lax" in header
    assert len(first.json()) == 43
    second = client.get("/")
    assert second.json() == first.json()
    assert "set-cookie" not in second.headers
    assert make().get("/").json() != first.json()


@pytest.mark.parametrize("other", ["a@b=1", 'x={"a":1}', "flag", "j=a b", "u[x]=1", "名=1", "a/b=1"])
def test_cookies_of_other_local_apps_change_nothing(other: str) -> None:
    client = make()
    token = client.get("/").json()
    client.cookies.clear()
    header = f"{other}; {BROWSER_COOKIE}={token}; z=1".encode()
    reply = client.get("/", headers=[(b"cookie", header)])
    assert reply.json() == token
    assert "set-cookie" not in reply.headers


@pytest.mark.parametrize("forged", ["short", "a" * 200, "../../etc/passwd"])
def test_a_cookie_of_another_shape_is_replaced(forged: str) -> None:
    reply = make().get("/", headers={"cookie": f"{BROWSER_COOKIE}={forged}"})
    assert BROWSER_COOKIE in reply.headers["set-cookie"]
