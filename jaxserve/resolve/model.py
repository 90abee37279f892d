"""What MODEL may be, in the order in which it is looked at."""

from __future__ import annotations

import logging
from pathlib import Path

from jaxserve.errors import ModelLoadError
from jaxserve.models.remote import URL, local_model_dir
from jaxserve.resolve.chat_model import chat_model
from jaxserve.resolve.gguf import gguf_in, stand_for_gguf
from jaxserve.resolve.hub import fetch, hub_model

_log = logging.getLogger(__name__)
STORY, SMOLLM2 = "story", "smollm2"
"""Names of the model that ships with the package, and of the chat model that is fetched."""


def bundled_model_dir() -> Path:
    """The directory of the model that ships with the package."""
    return Path(__file__).parent.parent / "_bundled" / "story"


def default_model_dir() -> Path:
    """The chat model; the bundled one where that can't be had, with a line that says why."""
    try:
        return stand_for_gguf(chat_model())
    except ModelLoadError as error:
        _log.warning("%s Serving the bundled story model, which completes stories and nothing else.", error)
        return bundled_model_dir()


def resolve_model(model: str | Path) -> Path:
    """The directory to load a model from.

    Args:
        model: a directory; a GGUF file, or a directory that holds one; a URL; "story" or "smollm2"; a model
            of the hub ("org/name", "org/name@revision", "org/name/file.gguf", each also behind "hf://").

    Raises:
        ModelLoadError: there is no such model, or it can't be read; one sentence that says what to do.
    """
    text, path = str(model), Path(model)
    if URL.fullmatch(text):
        return local_model_dir(text)
    if path.is_dir():
        found = gguf_in(path)
        return path if found is None else stand_for_gguf(found)
    if path.is_file():
        return _of_file(path)
    if text == STORY:
        return bundled_model_dir()
    if text == SMOLLM2:
        return stand_for_gguf(chat_model())
    if (named := hub_model(text)) is not None:
        fetched = fetch(named)
        return fetched if fetched.is_dir() else stand_for_gguf(fetched)
    raise ModelLoadError(f"Model directory {text} does not exist.")


def _of_file(path: Path) -> Path:
    if path.suffix == ".gguf":
        return stand_for_gguf(path)
    raise ModelLoadError(
        f"Model {path} is a single file: give a .gguf file, or the directory with config.json, *.safetensors and the "
        "tokenizer that this file belongs to."
    )
