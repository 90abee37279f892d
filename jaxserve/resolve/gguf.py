"""A directory in hub layout that stands for a GGUF file: its small files are made of the header, its weights stay."""

from __future__ import annotations

import json
import re
from pathlib import Path

from jaxserve.errors import ModelLoadError
from jaxserve.models.gguf.directory import write_list
from jaxserve.models.gguf.fields import config_fields
from jaxserve.models.gguf.file import open_gguf, split_files
from jaxserve.resolve.temporary import temporary_directory
from jaxserve.text.tokenizers.gguf import write_tokenizer

_QUANTISED = re.compile(r"[-.](I?Q\d\w*|B?F16|F32|MXFP4\w*)$", re.IGNORECASE)
_PART = re.compile(r"-\d{5}-of-\d{5}$")


def gguf_in(directory: Path) -> Path | None:
    """The GGUF file, or the first of the one split set, of a directory without config.json; None = there is none.

    Raises:
        ModelLoadError: there are several.
    """
    if (directory / "config.json").exists():
        return None
    files = sorted(path for path in directory.glob("*.gguf") if not path.name.startswith("mmproj"))
    firsts = list(dict.fromkeys(split_files(path)[0] for path in files))
    if len(firsts) > 1:
        names = ", ".join(path.name for path in firsts[:6])
        raise ModelLoadError(f"{directory} holds several models ({names}): name the file that is to be served.")
    return firsts[0] if firsts else None


def stand_for_gguf(path: Path) -> Path:
    """A temporary directory, named as the model, that stands for a GGUF file or the split set that it belongs to.

    Raises:
        ModelLoadError: a file is missing or damaged, or the model is of a kind that can't be served.
    """
    files = split_files(path)
    header = open_gguf(files)
    directory = temporary_directory(model_name(path))
    config = json.dumps(config_fields(header), indent=2)
    (directory / "config.json").write_text(config + "\n", encoding="utf-8")
    write_tokenizer(header.fields, directory)
    write_list(directory, files)
    return directory


def model_name(path: Path) -> str:
    """The file's name without its part of a split set and the kind of its blocks."""
    return _QUANTISED.sub("", _PART.sub("", path.stem)) or path.stem
