"""What is let in before the engine: how many, how much of it, encoded how, and whose cache it sees."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from api_client import CHAT, COMPLETIONS, Api
from api_fakes import ByteTokenizer, FakeEngine, FakeStats
from test_disconnect import eventually, send

from jaxserve.options import Limits

MakeApi = Callable[..., Api]
BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])


class SlowTokenizer(ByteTokenizer):
    """Stands still over texts with "slow" in them until the gate opens; notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.texts: list[str] = []

    def encode(self, text: str, *, add_special_tokens: bool, parse_special: bool = True) -> list[int]:
        if "slow" in text:
            self.texts.append(text)
            self.gate.wait(30)
        return super().encode(text, add_special_tokens=add_special_tokens, parse_special=parse_special)


@pytest.fixture
def slow(make_live: Any) -> Any:
    """A server whose two threads stand still."""
    tokenizer = SlowTokenizer()
    server = make_live(FakeEngine(tokenizer=tokenizer), max_waiting=3, slots=2)
    server.tokenizer = tokenizer
    yield server
    tokenizer.gate.set()


def test_the_queue_in_front_of_the_tokenizer_is_bounded(slow: Any) -> None:
    def ask(index: int) -> int:
        body = {"model": "fake", "prompt": f"slow {index}"}
        answer = httpx.post(slow.url + COMPLETIONS, json=body, timeout=60)
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
        return answer.status_code

    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(ask, index) for index in range(20)]
        assert eventually(lambda: sum(each.done() for each in asked) == 15)
        slow.tokenizer.gate.set()
        assert sorted(each.result() for each in asked) == [200] * 5 + [429] * 15
    assert httpx.post(slow.url + COMPLETIONS, json={"model": "fake", "prompt": "x"}).status_code == 200


def test_work_of_clients_that_have_left_is_dropped(slow: Any) -> None:
    connections = [send(slow, COMPLETIONS, {"prompt": f"slow {index}"}) for index in range(5)]
    assert eventually(lambda: len(slow.tokenizer.texts) == 2)
    for connection in connections:
        connection.close()
    again = {"model": "fake", "prompt": "x"}
    assert eventually(lambda: httpx.get(f"{slow.url}/metrics").text.count('status="499"} 5.0') == 1)
    slow.tokenizer.gate.set()
    assert httpx.post(slow.url + COMPLETIONS, json=again).status_code == 200
    assert len(slow.tokenizer.texts) == 2
    assert len(slow.engine.requests) == 1


def test_bodies_are_held_within_a_bound(make_live: Any) -> None:
    server = make_live(limits=Limits(max_held_bytes=100_000))
    held = [send_part(server, 60_000, 1_000_000)]
    time.sleep(0.2)
    body = {"model": "fake", "prompt": "a", "user": "x" * 60_000}
    refused = httpx.post(server.url + COMPLETIONS, json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    held[0].close()
    assert eventually(lambda: httpx.post(server.url + COMPLETIONS, json=body).status_code == 200)


def send_part(server: Any, size: int, whole: int) -> Any:
    import socket

    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: {whole}\r\n\r\n".encode()
    sock = socket.create_connection(("127.0.0.1", server.port))
    sock.sendall(head + b"x" * size)
    return sock


@pytest.mark.parametrize(("waiting", "least"), [(0, 1), (100, 1), (10_000, 30)])
def test_retry_after_follows_the_queue(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch, waiting: int, least: int
) -> None:
    engine = FakeEngine(delay=0.01)
    api = make_api(engine, slots=2)
    api.complete(max_tokens=10)
    monkeypatch.setattr(engine, "overloaded_after", 0)
    monkeypatch.setattr(engine, "stats", lambda: FakeStats(waiting=waiting))
    response = api.post(COMPLETIONS, api.body("completions"))
    assert response.status_code == 429
    assert least <= int(response.headers["retry-after"]) <= 60


@pytest.mark.parametrize("characters", [CONTEXT_SIZE := 3000, 100_000, 3_000_000])
@pytest.mark.parametrize("safe", [False, True])
@BOTH
def test_a_text_that_cannot_fit_is_refused_without_tokenizing_it(
    make_api: MakeApi, endpoint: str, safe: bool, characters: int
) -> None:
    tokenizer = SlowTokenizer()
    tokenizer.gate.set()
    api = make_api(FakeEngine(tokenizer=tokenizer))
    text = "slow" + "x" * characters
    fields = {"prompt": text} if endpoint == "completions" else {"content": text}
    body = api.refuse(endpoint, 400, safe_tokenization=safe, **fields)
    assert body["error"]["code"] == "context_length_exceeded"
    assert sum(map(len, tokenizer.texts)) < 100_000
    assert len(json.dumps(body)) < 2000


@pytest.mark.parametrize("bos", [True, False])
def test_a_prompt_is_tokenized_once(make_api: MakeApi, bos: bool) -> None:
    tokenizer = SlowTokenizer()
    tokenizer.gate.set()
    api = make_api(FakeEngine(tokenizer=tokenizer))
    api.complete("slow one")
    api.chat("slow two")
    assert len(tokenizer.texts) == 2


@pytest.mark.parametrize("length", [1, 20, 500])
@BOTH
def test_truncation_reads_no_more_than_it_keeps(make_api: MakeApi, endpoint: str, length: int) -> None:
    tokenizer = SlowTokenizer()
    tokenizer.gate.set()
    api = make_api(FakeEngine(tokenizer=tokenizer))
    if endpoint == "completions":
        api.complete("slow" * 100_000 + "the end", prompt_truncate_len=length)
        assert bytes(api.last().prompt[-7:]) == b"the end"[-length:]
        assert len(api.last().prompt) == length
    else:
        turns = [{"role": "user", "content": "slow" * 100_000}, {"role": "user", "content": "the end"}]
        api.chat(messages=turns, prompt_truncate_len=length + 20)
        assert b"the end" in bytes(token for token in api.last().prompt if token < 256)
    assert sum(map(len, tokenizer.texts)) < 50_000


# Encodings of the body


@BOTH
def test_gzip_bodies_are_decoded(api: Api, endpoint: str) -> None:
    path = CHAT if endpoint == "chat" else COMPLETIONS
    for encoding in ("gzip", "GZIP", "identity", ""):
        body = json.dumps(api.body(endpoint, user="z" * 5000)).encode()
        data = gzip.compress(body) if encoding.lower() == "gzip" else body
        headers = {"content-type": "application/json", "content-encoding": encoding}
        assert api.post(path, content=data, headers=headers).status_code == 200


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "compress", "gzip, gzip", "x"])
def test_other_encodings_are_refused_by_name(api: Api, encoding: str) -> None:
    response = api.post(CHAT, content=b"{}", headers={"content-encoding": encoding})
    assert response.status_code == 415
    assert response.json()["error"]["param"] == "content-encoding"
    assert response.headers["accept-encoding"] == "gzip"


def bomb(size: int) -> bytes:
    return gzip.compress(b'{"user": "' + b"x" * size + b'"}')


WHOLE = gzip.compress(b'{"model": "fake", "prompt": "a"}')
BROKEN: dict[str, tuple[bytes, int]] = {
    "a bomb": (bomb(50_000_000), 413),
    "one byte too many": (gzip.compress(b" " * 100_001), 413),
    "plain": (b'{"model": "fake"}', 400),
    "cut": (WHOLE[:-5], 400),
    "more behind it": (WHOLE + b"x", 400),
    "two members": (WHOLE + WHOLE, 400),
    "zlib": (zlib.compress(b"{}"), 400),
    "nothing": (b"", 400),
    "wrong checksum": (WHOLE[:-8] + b"\0" * 8, 400),
}


@pytest.mark.parametrize("name", BROKEN)
def test_gzip_that_is_too_much_or_broken(make_api: MakeApi, name: str) -> None:
    data, status = BROKEN[name]
    api = make_api(limits=Limits(max_body_bytes=100_000))
    response = api.post(COMPLETIONS, content=data, headers={"content-encoding": "gzip"})
    assert response.status_code == status, response.text
    exact = gzip.compress(b'{"model": "fake", "prompt": "a"}'.ljust(100_000))
    assert api.post(COMPLETIONS, content=exact, headers={"content-encoding": "gzip"}).status_code == 200


# Whose cache


def cache_keys(api: Api, authorizations: list[str | None], **fields: Any) -> list[str]:
    keys = []
    for authorization in authorizations:
        headers = {} if authorization is None else {"authorization": authorization}
        assert api.post(COMPLETIONS, api.body("completions", **fields), headers=headers).status_code == 200
        keys.append(api.last().cache_key)
    return keys


@pytest.mark.parametrize("keys", [(), ("one", "two")])
@pytest.mark.parametrize("fields", [{}, {"prompt_cache_isolation_key": "mine"}, {"prompt_cache_key": "mine"}])
@pytest.mark.parametrize("shared", [False, True])
def test_each_api_key_has_its_own_cache(
    make_api: MakeApi, keys: tuple[str, ...], fields: dict[str, str], shared: bool
) -> None:
    api = make_api(api_keys=keys, share_prompt_cache=shared)
    one, two, again = cache_keys(api, ["Bearer one", "Bearer two", "bearer  one"], **fields)
    assert one == again
    assert (one == two) is shared
    assert "one" not in one


def test_isolation_keys_isolate_within_an_api_key(make_api: MakeApi) -> None:
    api = make_api()
    found = [
        cache_keys(api, [who], **fields)[0]
        for who in (None, "Bearer one", "Basic one")
        for fields in ({}, {"prompt_cache_isolation_key": "a"}, {"prompt_cache_isolation_key": "b"})
    ]
    assert len(set(found)) == 6, "a scheme that is no key is nobody's"


def test_nobody_can_spell_another_key_s_cache(make_api: MakeApi) -> None:
    api = make_api()
    (theirs,) = cache_keys(api, ["Bearer one"])
    assert theirs not in cache_keys(api, [None], prompt_cache_isolation_key=theirs)
