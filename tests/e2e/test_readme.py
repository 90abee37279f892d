"""Everything that the README tells people to type works as it stands, but for port and model."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jaxserve.cli import app
from jaxserve.resolve.chat_model import SMOLLM2, cache_directory

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
MODEL = "SmolLM2-135M-Instruct"
CALLS = [code for kind, code in BLOCKS if kind == "sh" and code.startswith("curl")]
PROGRAMS = [code for kind, code in BLOCKS if kind == "python" and "127.0.0.1:8000" in code]
COMMANDS = [
    line
    for kind, code in BLOCKS
    if kind == "sh"
    for line in code.splitlines()
    if re.match(r"(\.venv/bin/)?jaxserve ", line)
]

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask the internet for a list of prices


def first_import(code: str) -> str:
    """The package that a program is about: the first that isn't Python's own."""
    names = re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE)
    return next(name for name in names if name != "typing")


def curl(url: str, code: str) -> str:
    told = subprocess.run(
        ["sh", "-c", code.replace("http://127.0.0.1:8000", url)],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    return told.stdout


@pytest.fixture(scope="module")
def url(serve) -> str:
    """The story model under the name that the README has, small enough to be up soon."""
    flags = ("--max-num-seqs", "4", "--max-model-len", "512", "--max-num-batched-tokens", "64")
    found: str = serve(None, "--served-model-name", MODEL, *flags).url
    return found


def chunks(text: str) -> Iterator[dict]:
    for line in text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])


def test_there_are_five_calls_and_five_clients():
    assert len(CALLS) == 5
    assert [first_import(code) for code in PROGRAMS] == [
        "openai",
        "fireworks",
        "litellm",
        "langchain_openai",
        "instructor",
    ]


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_the_calls_are_answered(url, number):
    told = curl(url, CALLS[number])
    answers = [json.loads(told)] if told.startswith("{") else list(chunks(told))
    assert answers, told
    for answer in answers:
        assert "error" not in answer, answer
        assert answer["choices"]


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_the_clients_programs_run(url, number, capsys):
    code = PROGRAMS[number]
    pytest.importorskip(first_import(code))
    program = compile(code.replace("http://127.0.0.1:8000", url), "README.md", "exec", dont_inherit=True)
    exec(program, {"__name__": "readme"})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("line", COMMANDS, ids=range(len(COMMANDS)))
def test_the_commands_take_these_flags(line):
    words = shlex.split(line, comments=True)[1:]
    told = CliRunner().invoke(app, [words[0], "--help"])
    assert told.exit_code == 0, line
    for word in words[1:]:
        assert not word.startswith("--") or word in told.output.split(), word


@pytest.mark.slow
def test_the_answers_are_the_real_models(serve):
    """What the README shows came from this file; other processors may round otherwise, but these answers are clear."""
    if not (cache_directory() / "models" / Path(SMOLLM2.member).name).is_file():
        pytest.skip("the chat model isn't in the cache directory")
    server = serve(
        cache_directory() / "models" / Path(SMOLLM2.member).name, "--max-num-seqs", "2", "--max-model-len", "1024"
    )
    plain, streamed, schema, tool, scored = (curl(server.url, code) for code in CALLS)
    assert json.loads(plain)["choices"][0]["message"]["content"] == "The capital of France is Paris."
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks(streamed))
    assert said == "1. Red: This is the most obvious colour, but"
    content = json.loads(json.loads(schema)["choices"][0]["message"]["content"])
    assert content == {"city": "Berlin", "country": "Germany", "millions": 3.7}
    (call,) = json.loads(tool)["choices"][0]["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("get_weather", {"city": "Paris"})
    assert json.loads(scored)["choices"][0]["logprobs"]["tokens"] == [" Paris"]
