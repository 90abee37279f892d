"""The tokenizers that the text tests run over, and formats bound to a small one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jaxserve.text import ChatTemplate, Tokenizer, load_tokenizer
from jaxserve.text.formats import FORMATS, BoundFormat, bind
from jaxserve.text.tokenizers.streams import TokenStream

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "tokenizers"
OWN = ("byte_level", "tiktoken", "sentencepiece", "sentencepiece_squeeze")
REAL = {
    "gpt2": "real/tokenizers/gpt2",
    "gpt_oss": "real/tokenizers/gpt_oss",
    "qwen": "real/tokenizers/qwen",
    "llama2": "real/tokenizers/llama2",
    "llama3": "real/tokenizers/llama3",
    "deepseek_v3": "real/tokenizers/deepseek_v3",
    "stories260K": "real/models/stories260K",
    "TinyStories-656K": "real/models/TinyStories-656K",
}

load_cached = cache(load_tokenizer)


@pytest.fixture(params=OWN)
def own_dir(request: pytest.FixtureRequest) -> Path:
    """Directory of each of our own tokenizers in turn."""
    name: str = request.param
    return FIXTURES / name


@pytest.fixture
def own(own_dir: Path) -> Tokenizer:
    return load_cached(own_dir)


@pytest.fixture
def fixtures() -> Path:
    return FIXTURES


@pytest.fixture(params=REAL)
def real_dir(request: pytest.FixtureRequest, shared_dir: Path) -> Path:
    """Directory of each published tokenizer in turn, where it is at hand."""
    directory = shared_dir / REAL[request.param]
    if not directory.is_dir():
        pytest.skip(f"{directory.name} is not at hand")
    return directory


@pytest.fixture
def real(real_dir: Path) -> Tokenizer:
    return load_cached(real_dir)


@pytest.fixture
def model_dir(tmp_path: Path) -> Callable[..., Path]:
    """Writes JSON files (and copies of others) into a fresh model directory: model_dir(config={...}, source=DIR)."""

    def write(source: Path | None = None, **files: Any) -> Path:
        for path in source.iterdir() if source else ():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        for name, value in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
        return tmp_path

    return write


Binder = Callable[..., BoundFormat]
EOS = "<eos>"
_TOKEN = re.compile(r"(<[^\s<>]{2,}>|\[[A-Z_]+\]|｜\S+｜|\[e~\[)\Z")


class ByteTokenizer:
    """Every byte is a token; markers are further ones."""

    def __init__(self, specials: Iterable[str], others: Iterable[str] = ()) -> None:
        self._special = tuple(dict.fromkeys(specials))
        self._texts = (*self._special, *(text for text in dict.fromkeys(others) if text not in self._special))
        self.vocab_size = 256 + len(self._texts)
        self.bos_id: int | None = None
        self.eos_ids = (256,)
        self.special_tokens: Mapping[str, str] = {"eos_token": self._special[0]}
        longest = sorted(self._texts, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest)) + ")")

    def encode(self, text: str, *, add_special_tokens: bool, parse_special: bool = True) -> list[int]:
        ids: list[int] = []
        for part in self._split.split(text) if parse_special else [text]:
            if parse_special and part in self._texts:
                ids.append(256 + self._texts.index(part))
            else:
                ids += part.encode("utf-8", "replace")
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool) -> str:
        kept = [i for i in ids if not (skip_special_tokens and self.is_special(i))]
        return b"".join(map(self.token_bytes, kept)).decode("utf-8", "replace")

    def stream(self, *, skip_special_tokens: bool) -> TokenStream:
        raise NotImplementedError

    def token_bytes(self, token_id: int) -> bytes:
        if token_id < 256:
            return bytes([token_id])
        return self._texts[token_id - 256].encode() if token_id < self.vocab_size else b""

    def token_text(self, token_id: int) -> str:
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def id_of(self, text: str) -> int | None:
        return 256 + self._texts.index(text) if text in self._texts else None

    def is_special(self, token_id: int) -> bool:
        return 256 <= token_id < 256 + len(self._special)


def marker_tokens(name: str) -> list[str]:
    """The markers of a format that are single tokens in its models' vocabularies, more or less."""
    chosen = FORMATS[name]
    thinking = (chosen.thinking.open, chosen.thinking.close) if chosen.thinking else ()
    return [text for text in (*chosen.stops, *chosen.calls.markers, *thinking) if _TOKEN.match(text)]


@cache
def _bound(name: str, tokens: bool, template: str | None) -> BoundFormat:
    tokenizer = ByteTokenizer([EOS], marker_tokens(name) if tokens else ())
    chat = ChatTemplate({"default": template}, {"bos_token": "<s>", "eos_token": "</s>"}) if template else None
    return bind(FORMATS[name], tokenizer, chat)


@pytest.fixture(scope="session")
def bound() -> Binder:
    """Binds a format by name; its markers are single tokens, or plain text with `tokens=False`."""

    def make(name: str, *, tokens: bool = True, template: str | None = None) -> BoundFormat:
        return _bound(name, tokens, template)

    return make


@pytest.fixture(scope="session")
def weather_tools() -> Sequence[Mapping[str, Any]]:
    """Two tools in OpenAI's form, with parameters of every kind."""
    parameters = {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "options": {
                "type": "object",
                "properties": {"wind": {"type": "boolean"}, "levels": {"type": "array", "items": {"type": "number"}}},
                "required": ["wind"],
                "additionalProperties": False,
            },
            "note": {"type": ["string", "null"]},
            "detail": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    return [
        {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": parameters}},
        {"type": "function", "function": {"name": "ping", "description": "Nothing", "parameters": nothing}},
    ]
