"""Models of the Hugging Face hub, by their id: what is needed of them is kept in huggingface_hub's own cache.

What the cache holds whole is served without asking anybody. The token is the one that huggingface_hub finds (HF_TOKEN,
or what its login stored), the address that of HF_ENDPOINT.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxserve.errors import ModelLoadError
from jaxserve.models.gguf.file import split_files
from jaxserve.resolve.temporary import temporary_directory

_ID = re.compile(r"(?:hf:/+)?(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?P<file>[\w./-]+\.gguf))?(?:@(?P<revision>[\w./-]+))?")
_SMALL = re.compile(
    r"((generation_|preprocessor_|processor_|tokenizer_)?config|tokenizer|special_tokens_map|added_tokens)\.json"
    r"|(chat_template|vocab)\.json"
    r"|chat_template\.jinja|additional_chat_templates/[^/]+\.jinja|tokenizer\.model|tiktoken\.model|[^/]+\.tiktoken"
    r"|merges\.txt"
)
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = re.compile(r"tokenizer\.json|.+\.model|.+\.tiktoken")
_PATIENCE = 8.0
"""Seconds that the hub has for its first answer."""


@dataclass(frozen=True)
class HubModel:
    """A model, or a GGUF file, of the hub."""

    repo: str
    file: str | None
    revision: str | None

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        return f"{self.repo}{file}{f'@{self.revision}' if self.revision else ''}"


def hub_model(text: str) -> HubModel | None:
    """Reads 'org/name', 'hf://org/name@revision', 'org/name/file.gguf'; None = it is none of these."""
    match = _ID.fullmatch(text)
    return HubModel(**match.groupdict()) if match else None


def fetch(model: HubModel) -> Path:
    """The local directory of a model in hub layout, or the GGUF file that was named or is the only one.

    Raises:
        ModelLoadError: the hub has no such model, gives it to nobody without a token, or can't be reached.
    """
    found = _cached(model) or _downloaded(model)
    return found if found.is_file() else _named(found, model.repo.split("/")[1])


def _named(snapshot: Path, name: str) -> Path:
    """A directory of the model's name for the cache's, which is called by its commit."""
    directory = temporary_directory(name)
    for path in snapshot.iterdir():
        (directory / path.name).symlink_to(path)
    return directory


def _cached(model: HubModel) -> Path | None:
    """What the cache holds, if it is whole."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model.repo, model.file or "config.json", revision=model.revision)
    if not isinstance(found, str):
        return None
    path = Path(found)
    if model.file is not None:
        return path if all(part.is_file() for part in split_files(path)) else None
    return path.parent if _is_whole(path.parent) else None


def _is_whole(directory: Path) -> bool:
    if not (directory / "config.json").is_file() or not any(_TOKENIZERS.fullmatch(p.name) for p in directory.iterdir()):
        return False
    if (directory / _INDEX).is_file():
        weights = json.loads((directory / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        return all((directory / name).is_file() for name in set(weights))
    return any(directory.glob("*.safetensors"))


def _downloaded(model: HubModel) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi()
    try:
        info = api.model_info(model.repo, revision=model.revision, timeout=_PATIENCE)
        wanted = _wanted(model, [each.rfilename for each in info.siblings or ()])
        fetched = snapshot_download(
            model.repo, revision=model.revision, allow_patterns=wanted, etag_timeout=_PATIENCE
        )  # by the name of the revision, so that the cache remembers what it stands for
    except ModelLoadError:
        raise
    except GatedRepoError:
        raise ModelLoadError(
            f"{model.repo} is given only to those who accepted its terms: do so on its page, and set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise ModelLoadError(f"{model.repo} has no revision {model.revision!r}.") from None
    except RepositoryNotFoundError:
        raise ModelLoadError(
            f"There is neither a local directory {model} nor such a model at {api.endpoint} (private: set HF_TOKEN)."
        ) from None
    except Exception as error:  # noqa: BLE001 - the library raises those of whatever speaks HTTP for it
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelLoadError(
            f"There is no local directory {model}, and {api.endpoint} can't be reached to fetch it: {cause}."
        ) from None
    return Path(fetched, wanted[0]) if wanted[0].endswith(".gguf") else Path(fetched)


def _wanted(model: HubModel, names: Sequence[str]) -> list[str]:
    """The files that are needed: the GGUF file first where it is one.

    Raises:
        ModelLoadError: there is nothing that can be served, or several GGUF files and none was named.
    """
    if model.file is not None:
        parts = [str(path) for path in split_files(Path(model.file))]
        if not set(parts) <= set(names):
            raise ModelLoadError(f"{model.repo} has no file {model.file}.")
        return parts
    small = [name for name in names if _SMALL.fullmatch(name)]
    weights = [name for name in names if re.fullmatch(r"[^/]+\.safetensors", name)]
    if "config.json" in names and weights:
        if _INDEX in names:
            return [*small, _INDEX, *(name for name in weights if not name.startswith("consolidated"))]
        return [*small, *(["model.safetensors"] if "model.safetensors" in weights else weights)]
    files = [name for name in names if name.endswith(".gguf") and "mmproj" not in name]
    firsts = list(dict.fromkeys(str(split_files(Path(name))[0]) for name in files))
    if len(firsts) == 1:
        return [str(path) for path in split_files(Path(firsts[0]))]
    if firsts:
        raise ModelLoadError(f"{model.repo} holds several GGUF files: name one, such as {model.repo}/{firsts[0]}.")
    raise ModelLoadError(f"{model.repo} holds neither *.safetensors with a config.json nor a .gguf file.")
