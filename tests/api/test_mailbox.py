"""Deltas on their way from the engine's thread to the event loop, and their encoding."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from jaxserve.api.sse import encode_json
from jaxserve.api.submission import DeltaQueue, Mailbox
from jaxserve.engine.requests import Delta
from jaxserve.errors import SlowClient


def delta(index: int) -> Delta:
    return Delta(request_id="r", choice=0, token_ids=(index,))


def queue_of(loop: asyncio.AbstractEventLoop, capacity: int = 10, overflowed: Any = lambda: None) -> DeltaQueue:
    return DeltaQueue(loop, capacity, overflowed)


def test_a_burst_for_many_requests_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> tuple[int, list[list[Delta]]]:
        loop, calls = asyncio.get_running_loop(), []
        Mailbox.of(loop)
        queues = [queue_of(loop) for _ in range(50)]
        readers = [asyncio.ensure_future(queue.take()) for queue in queues]
        await asyncio.sleep(0)
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *a: calls.append(a) or wake(*a), raising=False)

        def burst() -> None:
            for index, queue in enumerate(queues):
                queue.put(delta(index))
                queue.put(delta(index))

        thread = threading.Thread(target=burst)
        thread.start()
        thread.join()  # the loop can't have run meanwhile
        return len(calls), await asyncio.gather(*readers)

    calls, taken = asyncio.new_event_loop().run_until_complete(run())
    assert calls == 1
    assert [[d.token_ids[0] for d in one] for one in taken] == [[index, index] for index in range(50)]


def test_what_comes_between_two_readings_is_not_lost() -> None:
    async def run() -> list[int]:
        queue, seen = queue_of(asyncio.get_running_loop()), []
        writer = threading.Thread(target=lambda: [queue.put(delta(index)) for index in range(5000)])
        writer.start()
        while len(seen) < 5000:
            seen += [d.token_ids[0] for d in await queue.take()]
        writer.join()
        return seen

    assert asyncio.run(asyncio.wait_for(run(), 30)) == list(range(5000))


def test_a_client_that_does_not_read_ends_its_request_and_nothing_else_does() -> None:
    async def run() -> None:
        ended: list[int] = []
        queue = queue_of(asyncio.get_running_loop(), 3, lambda: ended.append(1))
        for index in range(10):
            queue.put(delta(index))
        assert len(await queue.take()) == 10, "the loop was late, not the client"
        queue.stalled = True
        for index in range(10):
            queue.put(delta(index))
        queue.stalled = False
        assert ended == [1]
        assert [d.token_ids[0] for d in await queue.take()] == [0, 1, 2]
        queue.put(delta(11))
        with pytest.raises(SlowClient):
            await queue.take()

    asyncio.run(run())


def test_a_nudge_takes_nothing() -> None:
    async def run() -> list[Delta]:
        queue = queue_of(asyncio.get_running_loop())
        asyncio.get_running_loop().call_later(0.01, queue.wake)
        return await queue.take()

    assert asyncio.run(run()) == []


@pytest.mark.parametrize(
    "value",
    [
        {"finish_reason": None, "text": 'null "quoted" \\ \t\n ü 漢 🙂'},
        {"text": "a\u2028b\u2029c\x85d\x7fe", "n": [1, 2.5, -0.0, 1e-300, 10**30, True, None]},
        {"text": "half of a pair: \ud83d", "nested": {"ä": []}},
        {},
    ],
)
def test_json_is_what_it_would_be_from_the_standard_library(value: dict[str, Any]) -> None:
    encoded = encode_json(value)
    whole = json.loads(json.dumps(value).replace('\\ud83d"', '?"'))
    assert json.loads(encoded) == whole
    assert len(encoded.decode().splitlines()) == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_in_json_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match=r"not finite|JSON compliant"):
        encode_json({"finish_reason": None, "logprobs": {"content": [{"logprob": number}]}})
