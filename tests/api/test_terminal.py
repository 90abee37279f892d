"""`jaxserve chat`: its commands, what it sends to a real server, and what it prints."""

from __future__ import annotations

import io
import json

import pytest
from api_fakes import CALL, UNCALL, FakeEngine, say
from rich.console import Console

from jaxserve.cli.answering import Refused, RemoteModel
from jaxserve.cli.calculator import calculate
from jaxserve.cli.talk import BadCommand, Talk
from jaxserve.cli.terminal import converse, show


@pytest.fixture
def talk(make_live):
    def make(engine=None, **options):
        server = make_live(engine, **options)
        made = Talk(RemoteModel(server.url))
        made.engine = server.engine
        return made

    return make


def answer(talk, text):
    return "".join(said.text for said in talk.ask(text))


def prompt_of(request):
    return bytes(token for token in request.prompt if token < 256).decode()


def test_a_conversation_with_settings(talk):
    made = talk()
    assert made.command("/system Be kind.") == "system prompt: Be kind."
    assert made.command("/set temperature 0.25") == "temperature = 0.25"
    made.command("/set top_k=9")
    assert answer(made, "Hi") == "Hello world"
    assert answer(made, "More") == "Hello world"
    request = made.engine.requests[-1]
    assert prompt_of(request) == "Be kind.HiHello worldMore"
    assert (request.sampling.temperature, request.sampling.top_k) == (0.25, 9)
    assert made.command("/set") == "temperature = 0.25\ntop_k = 9"
    assert made.command("/set top_k") == "top_k is no longer set"
    made.command("/new")
    answer(made, "Fresh")
    assert prompt_of(made.engine.requests[-1]) == "Be kind.Fresh"
    assert made.engine.requests[-1].sampling.top_k == 0


@pytest.mark.parametrize("line", ["/nothing", "/json {", "/"])
def test_bad_commands_say_so(talk, line):
    with pytest.raises(BadCommand):
        talk().command(line)


def test_help_names_every_command(talk):
    told = talk().command("/help")
    for name in ("system", "set", "json", "tools", "new", "help", "quit"):
        assert f"/{name}" in told


def test_a_schema_shapes_the_answer(talk):
    made = talk()
    schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"]}
    made.command("/json " + json.dumps(schema))
    assert json.loads(answer(made, "Hi")) == {"a": 1}
    assert made.command("/json off") == "answers are text"
    assert answer(made, "Hi") == "Hello world"


def test_tools_are_run_and_answered(talk):
    call = json.dumps({"name": "calculate", "arguments": {"expression": "(2 + 3) * 4"}})
    replies = iter([[CALL, *call.encode(), UNCALL], list(b"It is 20.")])
    made = talk(FakeEngine(lambda request, choice: [*next(replies), 257]), chat_format="qwen3")
    made.command("/tools on")
    said = list(made.ask("What is (2 + 3) * 4?"))
    assert [each.call for each in said if each.call] == ['calculate({"expression": "(2 + 3) * 4"}) = 20']
    assert "".join(each.text for each in said).endswith("It is 20.")
    assert [message["role"] for message in made.history] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1 + 2 * 3", "7"),
        ("-(4 / 2)", "-2.0"),
        ("1 / 0", "error"),
        ("__import__('os')", "error"),
        ("2 ** 999", "error"),
    ],
)
def test_the_calculator_only_calculates(expression, result):
    assert calculate(json.dumps({"expression": expression})).startswith(result)
    assert calculate("no JSON").startswith("error")


def test_what_fails_leaves_no_trace(talk):
    made = talk()
    made.command("/set top_k 1000")
    with pytest.raises(Refused, match="top_k"):
        answer(made, "Hi")
    assert made.history == []
    made.command("/set top_k")
    left = made.ask("Hi")
    next(left)
    left.close()
    assert made.history == []
    assert answer(made, "Hi") == "Hello world"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[bad"])
def test_servers_that_are_none(url):
    with pytest.raises(Refused):
        RemoteModel(url)


def test_a_key_is_sent(make_live):
    server = make_live(api_keys=("secret",))
    with pytest.raises(Refused, match="key"):
        RemoteModel(server.url)
    assert answer(Talk(RemoteModel(server.url, "secret")), "Hi") == "Hello world"


@pytest.mark.parametrize("terminal", [False, True])
def test_the_screen(talk, terminal, monkeypatch, tmp_path):
    lines = iter(["", "Hi", "/set top_k 7", "/bad", "/set top_k 7000", "Hi", "/quit", "never read"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    written = io.StringIO()
    made = talk()
    converse(made, Console(file=written, force_terminal=terminal, width=80), history=tmp_path / "history")
    for text in ("Hello world", "top_k = 7", "there is no /bad", "top_k: "):
        assert text in written.getvalue()
    assert len(made.engine.requests) == 1
    assert next(lines) == "never read"


def test_markdown_and_reasoning_are_drawn(talk):
    written = io.StringIO()
    made = talk(FakeEngine(say("<think>hm</think># Title")), chat_format="qwen3")
    show(Console(file=written, force_terminal=True, width=40), made.ask("Hi"))
    assert "hm" in written.getvalue()
    assert "# Title" not in written.getvalue()
    assert "Title" in written.getvalue()
