"""Who may ask what: tokens, the browser's session, other sites, other names, other owners."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.access.gate import COOKIE, host_of
from api.domain.tokens import TokenBook
from tests.support.service import World, a_dataset, a_job, an_architecture, client_of, model_text

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "TOKEN_MISSING"),
        ("Bearer ts_wrong", "TOKEN_INVALID"),
        ("Bearer", "TOKEN_INVALID"),
        ("Basic dXNlcjpwYXNz", "TOKEN_INVALID"),
        ("Bearer " + "x" * 5000, "TOKEN_INVALID"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("PUT", "/v1/datasets?name=x"), ("GET", "/v1/nothing")],
)
def test_without_a_good_token_there_is_nothing(
    untouched: httpx.Client, header: str | None, code: str, method: str, path: str
) -> None:
    untouched.headers.pop("Authorization", None)
    headers = {} if header is None else {"Authorization": header}
    answer = untouched.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_expired_and_revoked_tokens_are_refused(world: World, client: httpx.Client) -> None:
    tokens = TokenBook(world.store)
    expired = tokens.create("local", lifetime_s=-1)
    revoked = tokens.create("local")
    tokens.revoke(revoked.id)
    once = tokens.create("local", kind="once")
    for token in (expired, revoked, once):
        answer = client.get("/v1/jobs", headers={"Authorization": f"Bearer {token.secret}"})
        assert answer.status_code == 401


def test_a_reader_cannot_write(world: World, client: httpx.Client) -> None:
    reader = TokenBook(world.store).create("reader", scopes=("read",))
    client.headers["Authorization"] = f"Bearer {reader.secret}"
    assert client.get("/v1/jobs").status_code == 200
    answer = client.post("/v1/architectures", params={"name": "x"}, content="nc: 1")
    assert (answer.status_code, answer.json()["code"]) == (403, "SCOPE_MISSING")


def test_another_owners_things_do_not_exist(world: World, client: httpx.Client) -> None:
    job = a_job(world, client)
    other = world.other_user()
    for path in (f"/v1/jobs/{job['id']}", f"/v1/datasets/{job['dataset']}"):
        assert client.get(path, headers=other).status_code == 404
    for path in (f"/v1/architectures/{job['architecture']}", f"/v1/jobs/{job['id']}/events"):
        assert client.get(path, headers=other).status_code == 404
    for path in ("/v1/jobs", "/v1/datasets", "/v1/architectures"):
        assert client.get(path, headers=other).json()["items"] == []
    assert client.post(f"/v1/jobs/{job['id']}/cancel", headers=other).status_code == 404
    body = {"dataset": job["dataset"], "architecture": job["architecture"]}
    assert client.post("/v1/jobs", json=body, headers=other).status_code == 422


def open_session(client: httpx.Client, token: str, **headers: str) -> Any:
    client.headers.pop("Authorization", None)
    return client.post("/v1/session", json={"token": token}, headers=headers)


def test_a_session_is_a_cookie_that_scripts_and_other_sites_cannot_use(
    world: World, client: httpx.Client
) -> None:
    answer = open_session(client, world.token, **OWN_PAGE)
    assert answer.status_code == 201
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert world.token not in cookie
    assert client.get("/v1/session").json()["name"] == "local"
    assert client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:99"}, 403),
        ({"Origin": "OUR OWN"}, 201),
        (OWN_PAGE, 201),
    ],
)
def test_a_session_changes_things_only_from_our_own_pages(
    world: World, client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    open_session(client, world.token)
    sent = {
        key: value.replace("OUR OWN", f"http://{client.base_url.netloc.decode()}")
        for key, value in headers.items()
    }
    answer = client.post("/v1/architectures", params={"name": "n"}, content=model_text(), headers=sent)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "CROSS_SITE"


def test_another_site_cannot_open_a_session(world: World, client: httpx.Client) -> None:
    answer = open_session(client, world.token, **{"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, answer.json()["code"]) == (403, "CROSS_SITE")


def test_a_one_time_token_opens_one_session(world: World, client: httpx.Client) -> None:
    once = TokenBook(world.store).create("local", kind="once", lifetime_s=60).secret
    assert open_session(client, once).status_code == 201
    again = open_session(client, once)
    assert (again.status_code, again.json()["code"]) == (401, "TOKEN_INVALID")


def test_closing_a_session_ends_it_for_good(world: World, client: httpx.Client) -> None:
    open_session(client, world.token)
    secret = client.cookies[COOKIE]
    assert client.delete("/v1/session", headers=OWN_PAGE).status_code == 204
    assert client.get("/v1/jobs", headers={"Cookie": f"{COOKIE}={secret}"}).status_code == 401
    with_bearer = {"Authorization": f"Bearer {world.token}"}
    assert client.delete("/v1/session", headers=with_bearer).status_code == 204
    assert client.get("/v1/jobs", headers=with_bearer).status_code == 200


@pytest.mark.parametrize(
    ("header", "host"),
    [("LocalHost:8000", "localhost"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), (None, ""), ("a:b:c", "a")],
)
def test_hosts_are_read_without_their_port(header: str | None, host: str) -> None:
    assert host_of(header) == host


def test_other_names_are_not_answered(world: World, client: httpx.Client) -> None:
    for path in ("/v1/jobs", "/healthz", "/"):
        answer = client.get(path, headers={"Host": "evil.example"})
        assert (answer.status_code, answer.json()["code"]) == (400, "HOST_UNKNOWN")


def test_every_answer_is_hardened(world: World, client: httpx.Client) -> None:
    for path in ("/v1/jobs", "/v1/nothing", "/healthz"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_the_page_allows_only_its_own_files_and_import_map(world: World, client: httpx.Client) -> None:
    client.headers.pop("Authorization")
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self' 'sha256-" in policy
    assert "unsafe" not in policy
    assert client.get("/assets/js/app.js").headers["content-type"].startswith("text/javascript")
    for hidden in (
        "package.json",
        "node_modules/preact/package.json",
        "routes.py",
        "js/../package.json",
        ".x.js",
    ):
        assert client.get(f"/assets/{hidden}").status_code == 404
    assert client.get("/npm/nothing.js").json()["code"] == "NOT_FOUND"


def test_two_applications_live_side_by_side(world: World, client: httpx.Client) -> None:
    dataset = a_dataset(world, client, ready=False)
    with client_of(world) as second:
        assert second.get(f"/v1/datasets/{dataset}").status_code == 200
        an_architecture(second)
    assert client.get("/v1/architectures").json()["items"][0]["name"] == "yolov5n"
