"""`jaxserve bench`: what it sends, when, and what it makes of the answers, against a real server."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from api_fakes import FakeEngine
from typer.testing import CliRunner

from jaxserve.bench.load import Synthetic, poisson, synthetic
from jaxserve.bench.plots import NoPlots, check
from jaxserve.bench.report import Report, Spread, running
from jaxserve.bench.target import Measured
from jaxserve.bench.traces import BadTrace, read_trace
from jaxserve.cli import app

TRACES = Path(__file__).parents[1] / "fixtures" / "traces"
ALL = {"mean", "p50", "p90", "p95", "p99", "max", "unit"}


def bench(url, *flags, fine=True):
    """What the command prints; with `--json -` as a value."""
    result = CliRunner().invoke(app, ["bench", url, *flags], env={"COLUMNS": "160"})
    assert (result.exit_code == 0) == fine, result.output
    return json.loads(result.stdout) if "-" in flags else result.output


def texts(engine, skip=3):
    """Prompts as they came; the first requests only look at the server."""
    return [bytes(token for token in each.prompt if token < 256).decode() for each in engine.requests[skip:]]


def test_a_closed_loop_tells_everything_it_measured(live):
    told = bench(live.url, "--requests", "12", "--clients", "3", "--input", "40", "--output", "5", "--json", "-")
    assert (told["model"], told["planned"], told["answered"], told["errors"]) == ("fake", 12, 12, {})
    names = {"first_token", "between_parts", "later_token", "whole_answer", "prompt", "answer"}
    assert names <= set(told["spreads"])
    for spread in told["spreads"].values():
        assert set(spread) == ALL
        assert spread["p50"] <= spread["p90"] <= spread["p95"] <= spread["p99"] <= spread["max"]
    assert told["spreads"]["answer"]["mean"] == 5
    assert told["per_second"]["output_tokens"] == pytest.approx(60 / told["seconds"], rel=1e-3)
    for each in told["requests"]:
        assert each["planned"] is None
        assert 0 <= each["sent"] < each["first"] <= each["ended"] <= told["seconds"]
        assert sum(each["gaps"]) == pytest.approx(each["ended"] - each["first"])
    assert max(running([Measured(**each) for each in told["requests"]])[1]) <= 3
    assert all(each.max_tokens == 5 for each in live.engine.requests[3:])


def test_prompts_have_the_wished_length_in_the_servers_tokens(live):
    """A token of this server is a byte, so words have several; the calibration finds that out."""
    told = bench(live.url, "--requests", "8", "--input", "400", "--endpoint", "completions", "--json", "-")
    assert told["spreads"]["prompt"]["mean"] == pytest.approx(400, rel=0.1)


def test_prefixes_are_shared_and_nothing_else(live):
    flags = ["--requests", "10", "--prefix", "120", "--prefixes", "2", "--input", "60", "--endpoint", "completions"]
    bench(live.url, *flags)
    asked = texts(live.engine)
    beginnings = Counter(text[:80] for text in asked)
    assert len(beginnings) == 2
    assert len({text[-40:] for text in asked}) == 10
    live.engine.requests.clear()
    bench(live.url, *flags)
    assert Counter(texts(live.engine)) == Counter(asked), "the same seed asks the same"
    live.engine.requests.clear()
    bench(live.url, *flags, "--seed", "1")
    assert not set(texts(live.engine)) & set(asked)


def test_poisson_arrivals_come_when_they_should(live):
    told = bench(live.url, "--requests", "30", "--rate", "60", "--input", "8", "--output", "2", "--json", "-")
    assert told["answered"] == 30
    assert set(told["spreads"]["sent_late"]) == ALL
    for each in told["requests"]:
        assert each["sent"] >= each["planned"]
    asks = poisson(synthetic(Synthetic(requests=4000), 1), 50, 1)
    gaps = [after.at - before.at for before, after in pairwise(asks)]
    spread = Spread("gap", "s", tuple(gaps))
    assert spread.mean == pytest.approx(1 / 50, rel=0.08)
    # The median of an exponential distribution is ln 2 of its mean, its 95th percentile three means.
    assert spread.percentile(50) == pytest.approx(0.693 / 50, rel=0.1)
    assert spread.percentile(95) == pytest.approx(3.0 / 50, rel=0.1)


@pytest.mark.parametrize(("name", "requests"), [("blocks.jsonl", 6), ("lengths.csv", 4)])
def test_traces_shape_the_load(live, name, requests):
    flags = ["--trace", str(TRACES / name), "--scale", "0.05", "--speed", "20", "--endpoint", "completions"]
    told = bench(live.url, *flags, "--json", "-")
    assert (told["answered"], told["errors"]) == (requests, {})
    assert max(each["planned"] for each in told["requests"]) == pytest.approx(2.0 / 20)
    wished = [max(1, round(0.05 * ask.output)) for ask in read_trace(TRACES / name)]
    assert sorted(each.max_tokens for each in live.engine.requests[3:]) == sorted(wished)


def test_blocks_of_a_trace_are_common_beginnings():
    asks = read_trace(TRACES / "blocks.jsonl")
    assert [ask.input for ask in asks] == [1100, 1600, 1024, 300, 2000, 700]
    assert asks[0].prompt[:2] == asks[1].prompt[:2]
    assert asks[0].prompt[2] != asks[1].prompt[2]
    assert read_trace(TRACES / "lengths.csv", requests=2) == read_trace(TRACES / "lengths.csv")[:2]


@pytest.mark.parametrize("name", ["mooncake_conversation_trace.jsonl", "AzureLLMInferenceTrace_conv.csv"])
def test_published_traces_are_read(shared_dir, name):
    asks = read_trace(shared_dir / "real" / "traces" / name)
    known = json.loads((shared_dir / "real" / "traces" / "summary.json").read_text())
    facts = known["mooncake_conv" if name.startswith("moon") else "azure_conv"]
    assert len(asks) == facts["n"]
    inputs = sorted(ask.input for ask in asks)
    assert inputs[len(inputs) // 2] == pytest.approx(facts["in_p"][1], rel=0.01)
    assert [ask.at for ask in asks] == sorted(ask.at for ask in asks)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", ""),
        ("a.jsonl", '{"timestamp": 0}'),
        ("a.jsonl", "[1]"),
        ("a.jsonl", "no JSON"),
        ("a.csv", "a,b\n1,2"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2"),
        ("a.parquet", ""),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadTrace, match=r"/a\."):
        read_trace(tmp_path / name)


def test_failures_are_counted_and_told(make_live):
    server = make_live(FakeEngine(overloaded_after=7))
    told = bench(server.url, "--requests", "9", "--clients", "1", "--input", "8")
    assert "4 of 9 requests" in told
    assert "5 failed: 429: the queue is full" in told
    broken = make_live(FakeEngine(fail=RuntimeError("inside"), fail_after=2))
    assert "there" not in bench(broken.url, "--requests", "2", "--input", "8", fine=False)


def test_servers_that_know_less_are_measured_too(plain_server):
    """Without ignore_eos, usage or a list of choices in the last event: counted by parts."""
    told = bench(plain_server, "--requests", "3", "--input", "10", "--output", "4", "--json", "-", "--clients", "2")
    assert told["answered"] == 3
    assert "prompt" not in told["spreads"]
    assert [len(each["gaps"]) for each in told["requests"]] == [2, 2, 2]


@pytest.fixture
def plain_server():
    """Speaks the least of OpenAI's API: refuses fields it doesn't know, tells no usage."""
    listening = socket.create_server(("127.0.0.1", 0))
    chunk = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                head, _, body = read_request(connection)
                if b"GET" in head:
                    answer(connection, 200, b'{"data": [{"id": "plain"}]}')
                elif b"ignore_eos" in body:
                    answer(connection, 400, b'{"error": {"message": "unknown field"}}')
                elif b'"stream"' in body:
                    answer(connection, 200, 3 * chunk + b"data: [DONE]\n\n")
                else:
                    answer(connection, 200, b'{"choices": [{"message": {"content": "a"}}]}')

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head, length, body


def answer(connection, status, body):
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + body)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--clients", "2", "--rate", "3"], "one of the two"),
        (["--requests", "0"], "--requests"),
        (["--spread", "2"], "--spread"),
        (["--plot", "a.txt"], "plots end in"),
        (["--trace", "nothing.jsonl"], "No such file"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_sent(live, flags, told):
    assert told in bench(live.url, *flags, fine=False)
    assert live.engine.requests == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[bad"])
def test_servers_that_are_none(url):
    assert "error: " in bench(url, fine=False)


def test_a_key_is_sent(make_live):
    server = make_live(api_keys=("secret",))
    assert "key" in bench(server.url, "--requests", "1", fine=False)
    assert "1 of 1" in bench(server.url, "--requests", "1", "--input", "8", "--api-key", "secret")


def test_plots_and_json_are_written(live, tmp_path):
    pytest.importorskip("matplotlib")
    told = bench(
        live.url,
        "--requests",
        "4",
        "--input",
        "8",
        "--plot",
        str(tmp_path / "p.svg"),
        "--json",
        str(tmp_path / "r.json"),
    )
    assert "first token" in told
    picture = (tmp_path / "p.svg").read_text()
    assert "<svg" in picture
    assert len(picture) < 200_000
    kept = json.loads((tmp_path / "r.json").read_text())
    assert kept["settings"]["input"] == 8
    assert len(kept["requests"]) == 4


def test_plots_need_their_library(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(NoPlots, match="plots"):
        check(tmp_path / "a.svg")


def test_percentiles_and_what_runs():
    spread = Spread("x", "s", tuple(float(n) for n in range(101)))
    assert [spread.percentile(p) for p in (0, 50, 95, 100)] == [0, 50, 95, 100]
    two = [Measured(None, 0.0, 1.0, 4.0), Measured(None, 1.0, 2.0, 3.0)]
    assert running(two) == ([0.0, 1.0, 3.0, 4.0], [1, 2, 1, 0])
    empty = Report("u", "m", None, (), 3, 1.0)
    assert (empty.spreads(), empty.errors, empty.rates()["requests"]) == ([], {}, 0)
