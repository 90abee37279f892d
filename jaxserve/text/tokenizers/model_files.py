"""What the JSON files beside a model say about its tokens: which are special, which begin and end a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxserve.errors import ModelLoadError


@dataclass(frozen=True)
class AddedToken:
    """A token that exists beside the trained vocabulary."""

    id: int
    text: str
    special: bool
    """Left out of decoded text when special tokens are skipped."""
    lstrip: bool = False
    """Swallows the white space before it."""
    rstrip: bool = False
    """Swallows the white space after it."""


class ModelFiles:
    """Reads tokenizer_config.json, special_tokens_map.json, config.json and generation_config.json where they exist.

    Raises:
        ModelLoadError: a file is not JSON, or says something impossible.
    """

    def __init__(self, model_dir: Path) -> None:
        self.model_dir = model_dir
        self.tokenizer_config = read_json_object(model_dir / "tokenizer_config.json")
        self.config = read_json_object(model_dir / "config.json")
        self.generation_config = read_json_object(model_dir / "generation_config.json")
        self._special_map = read_json_object(model_dir / "special_tokens_map.json")

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """bos_token, eos_token ... and the model's own (image_token), by name; tokenizer_config.json wins."""
        merged = {**self._special_map, **self.tokenizer_config}
        named = {name: token_text(value) for name, value in merged.items() if name.endswith("_token")}
        return {name: text for name, text in named.items() if text}

    @cached_property
    def extra_special_texts(self) -> tuple[str, ...]:
        """additional_special_tokens of either file."""
        texts: dict[str, None] = {}
        for source in (self.tokenizer_config, self._special_map):
            listed = source.get("additional_special_tokens")
            for value in listed if isinstance(listed, list) else []:
                if text := token_text(value):
                    texts[text] = None
        return tuple(texts)

    @cached_property
    def added_tokens(self) -> tuple[AddedToken, ...]:
        """tokenizer_config.json's added_tokens_decoder, then added_tokens.json, ascending by id."""
        found: dict[int, AddedToken] = {}
        for text, value in read_json_object(self.model_dir / "added_tokens.json").items():
            token_id = _as_id(value, "added_tokens.json")
            found[token_id] = AddedToken(token_id, text, special=False)
        decoder = self.tokenizer_config.get("added_tokens_decoder")
        for key, value in decoder.items() if isinstance(decoder, dict) else []:
            token_id = _as_id(key, "tokenizer_config.json: added_tokens_decoder")
            content = token_text(value)
            if content is None:
                raise ModelLoadError(f"tokenizer_config.json: added_tokens_decoder[{key}] has no content.")
            flags = value if isinstance(value, dict) else {}
            found[token_id] = AddedToken(
                token_id, content, bool(flags.get("special")), bool(flags.get("lstrip")), bool(flags.get("rstrip"))
            )
        return tuple(found[token_id] for token_id in sorted(found))

    @property
    def add_bos(self) -> bool | None:
        """tokenizer_config.json's add_bos_token; None when it does not say."""
        return self._flag("add_bos_token")

    @property
    def add_eos(self) -> bool | None:
        """tokenizer_config.json's add_eos_token; None when it does not say."""
        return self._flag("add_eos_token")

    @property
    def model_type(self) -> str:
        """config.json's model_type, or ""."""
        value = self.config.get("model_type")
        return value if isinstance(value, str) else ""

    @property
    def tokenizer_class(self) -> str:
        """tokenizer_config.json's tokenizer_class, or ""."""
        value = self.tokenizer_config.get("tokenizer_class")
        return value if isinstance(value, str) else ""

    def config_bos_id(self) -> int | None:
        """bos_token_id of config.json or generation_config.json, for directories whose tokenizer files do not say."""
        if "bos_token" in self.tokenizer_config or "bos_token" in self._special_map:
            return None
        return next(_ids(source.get("bos_token_id") for source in self._configs()), None)

    def config_eos_ids(self) -> set[int]:
        """eos_token_id of config.json (also of its text_config) and generation_config.json, united."""
        return set(_ids(source.get("eos_token_id") for source in self._configs()))

    def _configs(self) -> Iterator[dict[str, Any]]:
        yield self.generation_config
        yield self.config
        if isinstance(text_config := self.config.get("text_config"), dict):
            yield text_config

    def _flag(self, name: str) -> bool | None:
        value = self.tokenizer_config.get(name)
        return value if isinstance(value, bool) else None


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} when there is no such file.

    Raises:
        ModelLoadError: the file can't be read or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path} is not a JSON object.")
    return value


def token_text(value: object) -> str | None:
    """Text of a token written as a string or as an AddedToken object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _as_id(value: object, where: str) -> int:
    if isinstance(value, int | str) and str(value).isdecimal():
        return int(value)
    raise ModelLoadError(f"{where}: {value!r} is not a token id.")


def _ids(values: Any) -> Iterator[int]:
    for value in values:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int) and not isinstance(item, bool) and item >= 0:
                yield item
