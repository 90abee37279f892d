"""Chat templates: where they are found, what they see, what they refuse, and that none can hang or flood the server."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jaxserve.errors import ModelLoadError, TemplateError
from jaxserve.text import ChatTemplate, Tokenizer, load_chat_template, load_tokenizer
from jaxserve.text.chat import image_mark, image_numbers

USER: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def render(source: str, messages: list[dict[str, Any]] | None = None, **args: Any) -> str:
    return ChatTemplate({"default": source}, SPECIAL).render(messages or USER, **args)


# -- what a template sees ---------------------------------------------------------------------------------------------


def test_a_whole_conversation() -> None:
    source = """{{ bos_token }}
{% for message in messages %}
    {% if loop.first and message.role == 'system' %}
[{{ message.content | trim }}]
    {% else %}
{{ message['role'] }}: {{ message['content'] }}{{ eos_token }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}assistant:{% endif %}"""
    messages = [{"role": "system", "content": " Be brief. "}, *USER]
    assert render(source, messages) == "<s>\n[Be brief.]\nuser: Hi</s>\nassistant:"
    assert render(source, messages, add_generation_prompt=False) == "<s>\n[Be brief.]\nuser: Hi</s>\n"


def test_special_tokens_that_the_model_lacks_are_empty() -> None:
    assert render("{{ bos_token }}|{{ pad_token }}|") == "<s>||"


def test_template_arguments_and_accepts() -> None:
    source = "{% if enable_thinking is defined and not enable_thinking %}quiet{% else %}{{ effort }}{% endif %}"
    template = ChatTemplate({"default": source}, {})
    assert template.render(USER, enable_thinking=False) == "quiet"
    assert template.render(USER, effort="high") == "high"
    assert template.accepts("enable_thinking")
    assert template.accepts("effort")
    assert not template.accepts("thinking")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("x | tojson", '{"b": "é<&>\'", "a": [1, null]}'),
        ("x | tojson(ensure_ascii=True)", '{"b": "\\u00e9<&>\'", "a": [1, null]}'),
        ("x | tojson(sort_keys=true)", '{"a": [1, null], "b": "é<&>\'"}'),
        ("x | tojson(separators=(',', ':'))", '{"b":"é<&>\'","a":[1,null]}'),
        ("x | tojson(indent=2)", json.dumps({"b": "é<&>'", "a": [1, None]}, indent=2, ensure_ascii=False)),
        ("[x, x] | map(attribute='a') | tojson", "[[1, null], [1, null]]"),
    ],
)
def test_tojson(call: str, expected: str) -> None:
    assert render("{{ " + call + " }}", x={"b": "é<&>'", "a": [1, None]}) == expected


def test_nothing_is_escaped() -> None:
    assert render("{{ messages[0].content }}", [{"role": "user", "content": "<b>2 & 3</b>"}]) == "<b>2 & 3</b>"


def test_white_space_control_loop_controls_and_generation_blocks() -> None:
    source = """{% for i in range(9) %}
    {% if i == 1 %}{% continue %}{% endif %}
    {% if i == 3 %}{% break %}{% endif %}
{{ i }}
{% endfor %}
{% generation %}
said
{% endgeneration %}
"""
    assert render(source) == "0\n2\nsaid\n"


def test_loop_variables_work() -> None:
    items = "{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ (loop.nextitem or m).c }};"
    source = "{% for m in messages %}" + items + "{% endfor %}"
    assert render(source, [{"c": 1}, {"c": 2}]) == "1/2False2;2/2True2;"
    assert render("{% for x in tools %}never{% else %}none{% endfor %}") == "none"


def test_templates_may_change_lists_of_their_own_but_not_the_request() -> None:
    source = (
        "{% set ids = namespace(all=[]) %}{% for m in messages %}{% set _ = ids.all.append(m.content) %}"
        "{% set _ = m.update({'content': 'changed'}) %}{% endfor %}{{ ids.all.pop(0) }}{{ messages[0].content }}"
    )
    messages = [{"role": "user", "content": "Hi"}]
    assert render(source, messages) == "Hichanged"
    assert messages == USER


def test_strftime_now() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", render("{{ strftime_now('%Y-%m-%d') }}"))


def test_empty_tools_are_none() -> None:
    source = "{% if tools is none %}none{% else %}{{ tools | length }}{% endif %}"
    assert [render(source, tools=tools) for tools in (None, [], [{"type": "function"}])] == ["none", "none", "1"]


def test_tools_use_the_template_made_for_them() -> None:
    template = ChatTemplate({"default": "plain", "tool_use": "tools"}, {})
    assert template.render(USER) == "plain"
    assert template.render(USER, tools=[{"type": "function"}]) == "tools"
    assert template.source == "plain"


# -- where templates are found ----------------------------------------------------------------------------------------


@pytest.fixture
def tokenizer(fixtures: Path) -> Tokenizer:
    return load_tokenizer(fixtures / "byte_level")


def test_lookup_order(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def found(path: Path | None = None) -> str | None:
        template = load_chat_template(tmp_path, tokenizer, path=path)
        return template.render(USER) if template else None

    assert found() is None
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "config {{ bos_token }}"}')
    assert found() == "config <|begin|>"
    (tmp_path / "chat_template.json").write_text('{"chat_template": "json"}')
    assert found() == "json"
    (tmp_path / "chat_template.jinja").write_text("jinja")
    assert found() == "jinja"
    (tmp_path / "mine.txt").write_text("mine")
    assert found(tmp_path / "mine.txt") == "mine"


def test_named_templates(tmp_path: Path, tokenizer: Tokenizer) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    template = load_chat_template(tmp_path, tokenizer)
    assert template is not None
    assert template.render(USER, tools=[{"type": "function"}]) == "tools"
    (tmp_path / "chat_template.jinja").write_text("plain2")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools2")
    template = load_chat_template(tmp_path, tokenizer)
    assert template is not None
    assert [template.render(USER), template.render(USER, tools=[{}])] == ["plain2", "tools2"]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('{"chat_template": "{% for %}"}', "line 1"),
        ('{"chat_template": 5}', "neither a text nor a list"),
        ('{"chat_template": [{"name": "rag", "template": "x"}]}', "no default"),
        ('{"chat_template": [{"name": "default"}]}', "neither a text nor a list"),
        ("{", "can't be read as JSON"),
    ],
)
def test_broken_templates_stop_the_start(tmp_path: Path, tokenizer: Tokenizer, config: str, says: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(ModelLoadError, match=says):
        load_chat_template(tmp_path, tokenizer)


def test_missing_template_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelLoadError, match="can't be read"):
        load_chat_template(tmp_path, tokenizer, path=tmp_path / "none.jinja")


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ raise_exception('Roles must alternate!') }}", "refused: Roles must alternate!"),
        ("{{ messages[7].content }}", "has no element 7"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{{ raise_exception.__globals__.clear() }}", "unsafe"),
        ("{% include 'x' %}", "failed|refused"),
        ("{{ lipsum() }}", "lipsum"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "Recursion"),
    ],
)
def test_refusals_quote_the_template(source: str, says: str) -> None:
    with pytest.raises(TemplateError, match=says) as caught:
        render(source)
    assert caught.value.field == "messages"


SLOW = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursive loop": "{% for a in [x] recursive %}{{ loop(a) }}{{ loop(a) }}{% endfor %}",
    "filters": "{% for a in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
    "sums": "{% for a in range(99999) %}{% set _ = range(99999) | sum %}{% endfor %}",
}


@pytest.mark.parametrize("name", SLOW)
def test_no_template_runs_long_in_a_worker_thread(name: str) -> None:
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested]
    template = ChatTemplate({"default": SLOW[name]}, {}, seconds=0.2)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            template.render(USER, x=nested)
        except TemplateError as error:
            caught.append(error)

    start = time.monotonic()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert time.monotonic() - start < 10
    assert "stopped: it ran longer than 0.2 seconds" in str(caught[0])


LARGE = {
    "concatenation": "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "sum": "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "list": "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "extend": "{% set s = [1] %}{% for i in range(60) %}{% set _ = s.extend(s) %}{% endfor %}",
    "set block": "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set t %}{{ n.s }}{{ n.s }}{% endset %}"
    "{% set n.s = t %}{% endfor %}",
    "product": "{{ 'x' * 10**12 }}",
    "list product": "{{ [0] * 10**12 }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "power of a variable": "{{ n ** n ** n }}",
    "repeated square": "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "center filter": "{{ 'x' | center(10**9) }}",
    "center method": "{{ 'x'.center(10**9) }}",
    "zfill": "{{ '1'.zfill(10**9) }}",
    "indent": "{{ 'x' | indent(10**9, true) }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (999999999, 1) }}",
    "format filter": "{{ '%999999999d' | format(1) }}",
    "format method": "{{ '{:999999999d}'.format(1) }}",
    "nested format": "{{ '{:{}}'.format(1, 999999999) }}",
    "named percent": "{{ '%(a)-999999999d' % {'a': 1} }}",
    "precision": "{{ '%5.999999999f' % 1.5 }}",
    "replace filter": "{{ text | replace('x', text) }}",
    "replace method": "{{ text.replace('x', text) }}",
    "join filter": "{{ ([text] * 90000) | join(text) }}",
    "join method": "{{ text.join([text] * 90000) }}",
    "range": "{{ range(10**12) | list }}",
    "output": "{% for i in range(99999) %}{{ text }}{% endfor %}",
    "macro": "{% macro f(s, n) %}{% if n %}{{ f(s ~ s, n - 1) }}{% endif %}{% endmacro %}{{ f('x', 60) }}",
    "tojson indent": "{{ [[[[1]]]] | tojson(indent=10**9) }}",
    "slice": "{{ [1] | slice(10**12) | list }}",
    "batch": "{{ [1] | batch(10**12, 0) | list }}",
}


@pytest.mark.parametrize("name", LARGE)
def test_no_template_builds_large_values(name: str) -> None:
    template = ChatTemplate({"default": LARGE[name]}, {}, seconds=5, max_chars=1_000_000)
    start = time.monotonic()
    with pytest.raises(TemplateError, match="stopped") as caught:
        template.render(USER, text="x" * 20_000, n=1000)
    assert "longer than" not in str(caught.value)
    assert time.monotonic() - start < 5


def test_limits_leave_ordinary_work_alone() -> None:
    long = "word " * 200_000
    assert len(render("{{ messages[0].content | trim | replace('w', 'W') }}", [{"content": long}])) == len(long) - 1
    assert render("{{ 'a%05.2f' % 2.5 }}{{ 2 ** 10 }}{{ '-' * 3 }}{{ 'x' | center(5) }}|") == "a02.501024---  x  |"
    assert render("{{ '%s in 2024: {}' % 'x' }}{{ 'in {} (2024)'.format('y') }}") == "x in 2024: {}in y (2024)"
    assert render("{{ '{:>3}'.format('x') }}{{ ', '.join(['a', 'b']) }}{{ [1, 2] | join('+') }}") == "  xa, b1+2"


def test_a_template_is_shared_by_threads() -> None:
    template = ChatTemplate({"default": "{% for m in messages %}{{ m.content }}{% endfor %}"}, {})
    results: dict[int, str] = {}

    def work(index: int) -> None:
        for _ in range(50):
            results[index] = template.render([{"content": str(index)}] * 20)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: str(i) * 20 for i in range(4)}


# -- published templates ----------------------------------------------------------------------------------------------

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "é<&"}}},
        },
    }
]
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln"}}}
PLAIN = [
    {"role": "user", "content": "First question?"},
    {"role": "assistant", "content": "First answer."},
    {"role": "user", "content": "<b>Second & last</b>"},
]
WITH_TOOLS: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefgh1", "name": "get_weather", "content": "rainy"},
]
NO_TOOLS = re.compile("gemma-2-2b|DeepSeek-R1-Distill|DeepSeek-V3.1|llama-cpp-rwkv|phi|Phi|apertus|Apertus")
NO_SYSTEM = re.compile("gemma-2-2b")


def published(shared_dir: Path) -> list[Path]:
    found = sorted((shared_dir / "real" / "templates").rglob("*.jinja"))
    if not found:
        pytest.skip("no published templates at hand")
    return found


def each_published(shared_dir: Path, use: Callable[[Path, ChatTemplate], None]) -> None:
    for path in published(shared_dir):
        use(path, compiled(path))


@cache
def compiled(path: Path) -> ChatTemplate:
    names = {"bos_token": "<BOS>", "eos_token": "<EOS>", "pad_token": "<PAD>", "unk_token": "<UNK>"}
    return ChatTemplate({"default": path.read_text(encoding="utf-8")}, names)


def test_published_templates_render_conversations(shared_dir: Path) -> None:
    def use(path: Path, template: ChatTemplate) -> None:
        text = template.render(PLAIN)
        for message in PLAIN:
            assert message["content"] in text, path.name
        if not NO_SYSTEM.search(path.name):
            assert "Be brief." in template.render([{"role": "system", "content": "Be brief."}, *PLAIN]), path.name
        start = time.perf_counter()
        template.render(PLAIN[:1])
        assert time.perf_counter() - start < 1

    each_published(shared_dir, use)


def test_published_templates_render_tools(shared_dir: Path) -> None:
    def use(path: Path, template: ChatTemplate) -> None:
        if NO_TOOLS.search(path.name):
            return
        assert "get_weather" in template.render(PLAIN[:1], tools=TOOLS), path.name
        text = template.render(WITH_TOOLS, tools=TOOLS)
        assert "rainy" in text, path.name
        assert "Köln" in text, path.name

    each_published(shared_dir, use)


def test_a_conversation_turned_into_tokens_has_one_bos(fixtures: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(fixtures / "byte_level")
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}<|turn|>")
    template = load_chat_template(tmp_path, tokenizer)
    assert template is not None
    ids = tokenizer.encode(template.render(USER), add_special_tokens=False)
    assert ids.count(tokenizer.bos_id or -1) == 1
    assert ids[0] == tokenizer.bos_id
    assert ids[-1] == tokenizer.id_of("<|turn|>")


PARTS_ONLY = (
    "{% for m in messages %}{% for p in m.content | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for p in m.content | selectattr('type', 'equalto', 'text') %}{{ p.text }}{% endfor %};{% endfor %}"
)
TEXT_OR_PARTS = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}{% endif %};{% endfor %}"
)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (PARTS_ONLY, "plain;<image><image>ab;"),
        (TEXT_OR_PARTS, "plain;a<image>b<image>;"),
        ("{% for m in messages %}{{ m.content }};{% endfor %}", f"plain;a{image_mark(0)}b{image_mark(12)};"),
    ],
)
def test_images_are_parts_for_templates_that_show_them(source: str, shown: str) -> None:
    template = ChatTemplate({"default": source}, {})
    messages = [
        {"role": "user", "content": "plain"},
        {"role": "user", "content": f"a{image_mark(0)}b{image_mark(12)}"},
    ]
    assert template.render(messages) == shown
    assert image_numbers(messages[1]["content"]) == [0, 12]
