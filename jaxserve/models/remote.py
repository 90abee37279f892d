"""Converted models behind a URL (`gs://bucket/model`, `s3://`, `file://`): small files are fetched, parameters are not.

tensorstore reads both, so what it finds credentials in (application default credentials for Google Cloud) counts here.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from pathlib import Path

import tensorstore as ts

from jaxserve.errors import ModelLoadError
from jaxserve.models.orbax_store import PARAMS, REMOTE

URL = re.compile(r"(?P<scheme>gs|s3|file):/+(?P<rest>.*?)/*")
"""What is behind a URL."""


def local_model_dir(model: str | Path) -> Path:
    """The directory to load a model from: a local path itself, or for a URL a temporary directory that stands for it.

    That directory holds configuration, tokenizer and templates, and says where the parameters are; it is removed when
    the process ends.

    Raises:
        ModelLoadError: the URL can't be read, or there is no converted model.
    """
    match = URL.fullmatch(str(model))
    if match is None:
        return Path(model)
    url = f"{match['scheme']}://{'/' if match['scheme'] == 'file' else ''}{match['rest']}"  # pathlib merges slashes
    try:
        return _fetch(url)
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelLoadError(f"{url} can't be read: {str(error).split(' [')[0].splitlines()[0]}.") from None


def _fetch(url: str) -> Path:
    store = ts.KvStore.open(url + "/").result()
    names = [key.decode() for key in store.list().result()]
    if "config.json" not in names or not any(name.startswith(f"{PARAMS}/") for name in names):
        raise ModelLoadError(f"{url} holds no model that `jaxserve convert` wrote (config.json and {PARAMS}/).")
    temporary = tempfile.mkdtemp(prefix="jaxserve-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    directory = Path(temporary) / url.rsplit("/", 1)[-1]
    small = [name for name in names if re.fullmatch(r"[^/]+|additional_chat_templates/[^/]+", name)]
    for name in small:
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read(name).result().value)
    (directory / REMOTE).write_text(f"{url}/{PARAMS}", encoding="utf-8")
    return directory
