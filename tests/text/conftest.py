"""The tokenizers that the text tests run over."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jaxserve.text import Tokenizer, load_tokenizer

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
