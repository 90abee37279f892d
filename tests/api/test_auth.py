"""API keys, and what stays open without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_client import CHAT, COMPLETIONS, Api, check
from api_fakes import FakeEngine, build

from jaxserve.api.auth import load_api_keys

MakeApi = Callable[..., Api]
GUARDED = [("POST", CHAT), ("POST", COMPLETIONS), ("GET", "/v1/models"), ("GET", "/v1/models/fake")]


@pytest.fixture(scope="module")
def locked() -> Iterator[Api]:
    engine = FakeEngine()
    client = Api(build(engine, api_keys=("key-one", "key-two")), engine)
    with client.http:
        yield client
    engine.close()


@pytest.mark.proves("header api-key", "header x-api-key")
@pytest.mark.parametrize("name", ["api-key", "x-api-key"])
def test_keys_as_other_clients_send_them(locked: Api, name: str) -> None:
    assert locked.post(CHAT, locked.chat_body(), headers={name: "key-two"}).status_code == 200
    refused = locked.post(CHAT, locked.chat_body(), headers={name: "key-on"})
    assert (refused.status_code, "not accepted" in refused.text) == (401, True)
    both = {name: "key-one", "authorization": "Bearer wrong"}
    assert locked.post(CHAT, locked.chat_body(), headers=both).status_code == 401


WRONG = [None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer key-on", "Bearer key-onee", "Basic key-one", "key-one"]


@pytest.mark.parametrize("header", WRONG)
def test_a_wrong_key_is_refused(locked: Api, header: str | None) -> None:
    elsewhere = ["/inference/v1", "/v1/v1", "", "/openai/v1", "/openai/deployments/fake"]
    for method, path in GUARDED + [(m, prefix + p.removeprefix("/v1")) for m, p in GUARDED for prefix in elsewhere]:
        response = locked.http.request(
            method, path, headers={} if header is None else {"authorization": header}, content=b"{"
        )
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"] == "Bearer"
        check(response.json(), "ErrorResponse")
        assert response.json()["error"]["param"] == "authorization"
        assert response.json()["detail"][0]["loc"] == ["header", "authorization"]


@pytest.mark.parametrize("header", ["Bearer key-one", "bearer key-two", "Bearer  key-two"])
def test_every_key_is_accepted(locked: Api, header: str) -> None:
    api = locked
    assert api.post(CHAT, api.chat_body(), headers={"authorization": header}).status_code == 200
    assert api.http.get("/inference/v1/models", headers={"authorization": header}).status_code == 200


def test_probes_and_the_description_stay_open(make_api: MakeApi) -> None:
    api = make_api(api_keys=("key",))
    for path in ("/health", "/ready", "/metrics", "/version", "/openapi.json"):
        assert api.http.get(path).status_code == 200, path
    assert api.http.get("/v1").status_code == 401
    assert api.http.get("/v1x").status_code == 401


def test_without_keys_everyone_may_enter(api: Api) -> None:
    assert api.post(CHAT, api.chat_body(), headers={"authorization": "Bearer whatever"}).status_code == 200


def test_keys_come_from_values_and_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nfrom-file\n\n  spaced  \n")
    assert load_api_keys(["given", "a", "given"], file) == ("given", "a", "from-file", "spaced")
    assert load_api_keys() == ()


@pytest.mark.parametrize("values", [[""], ["two words"], ["schlüssel"], ["tab\t"[:3] + "\x00"]])
def test_keys_that_no_header_can_carry(values: list[str]) -> None:
    with pytest.raises(ValueError, match="ASCII"):
        load_api_keys(values)


def test_key_files_that_are_no_use(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be read"):
        load_api_keys(file=tmp_path / "none")
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no key"):
        load_api_keys(file=tmp_path / "empty")


def test_cors_is_off_by_default(api: Api, make_api: MakeApi) -> None:
    origin = {"origin": "https://page.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in api.http.get("/v1/models", headers=origin).headers
    assert api.http.options(CHAT, headers=origin).status_code == 405
    opened = make_api(cors_origins=("https://page.example",), api_keys=("key",))
    preflight = opened.http.options(CHAT, headers=origin)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "https://page.example")
    other = opened.http.options(CHAT, headers={**origin, "origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
