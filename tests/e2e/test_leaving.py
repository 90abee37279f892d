"""How the process ends: told, drained, cut, at once; and what its exit code says."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

SMALL = ("--max-num-seqs", "4", "--max-model-len", "512", "--max-num-batched-tokens", "64")
MORTAL = Path(__file__).parent / "mortal.py"
LONG = {"model": "story", "prompt": "Once", "max_tokens": 500, "n": 4, "ignore_eos": True, "stream": True}


def in_background(server, bodies):
    """Streams whose events are collected, once each has begun."""
    texts, begun = [""] * len(bodies), [threading.Event() for _ in bodies]

    def read(index):
        try:
            with httpx.stream("POST", f"{server.url}/v1/completions", json=bodies[index], timeout=60) as response:
                for line in response.iter_lines():
                    texts[index] += line + "\n"
                    begun[index].set()
        except httpx.TransportError:
            texts[index] += "broken off"

    threads = [threading.Thread(target=read, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for event in begun:
        assert event.wait(60)
    return threads, texts


def test_it_is_told_then_drained_then_cut(serve):
    server = serve(None, *SMALL, "--drain-seconds", "2", "--shutdown-timeout", "0.2")
    server.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    while httpx.get(f"{server.url}/ready").status_code == 200:
        assert time.monotonic() - begun < 1.5
    body = {"model": "story", "prompt": "Once", "max_tokens": 4}
    assert httpx.post(f"{server.url}/v1/completions", json=body, timeout=30).status_code == 200
    assert httpx.get(f"{server.url}/health").status_code == 200
    late = [LONG] * 8
    threads, texts = in_background(server, late)
    for thread in threads:
        thread.join()
    assert server.process.wait(20) == 4
    assert 2 <= time.monotonic() - begun < 20
    cut = [text for text in texts if "[DONE]" not in text or '"error"' in text]
    assert cut
    assert all("the engine is shutting down" in text for text in cut)


def test_a_second_signal_ends_it_at_once(serve):
    server = serve(None, *SMALL, "--shutdown-timeout", "30")
    threads, _ = in_background(server, [LONG] * 8)
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 4
    assert time.monotonic() - begun < 8
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_sigint_with_nothing_to_do_is_a_fine_end(serve):
    server = serve(None, *SMALL)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(20) == 0


@pytest.mark.parametrize(("choice", "code"), [("stay", None), pytest.param("exit", 3, marks=pytest.mark.slow)])
def test_a_dead_engine(serve, tmp_path, choice, code):
    sign = tmp_path / "the device is gone"
    server = serve(None, *SMALL, "--on-engine-death", choice, through=(str(MORTAL), str(sign)))
    threads, texts = in_background(server, [LONG])
    sign.touch()
    for thread in threads:
        thread.join()
    assert '"error"' in texts[0], "who streams hears of it"
    if code is not None:
        assert server.process.wait(20) == code
        return
    plain = {"model": "story", "prompt": "Once", "max_tokens": 4}
    for _ in range(3):
        assert httpx.get(f"{server.url}/health").status_code == 503
        assert httpx.get(f"{server.url}/ready").status_code == 503
        refused = httpx.post(f"{server.url}/v1/completions", json=plain, timeout=30)
        assert refused.status_code == 503
        assert "the engine has stopped" in refused.json()["error"]["message"]
        time.sleep(0.3)
    assert server.engine("healthy") == 0
    assert server.process.poll() is None
    assert server.stop() == 3
