"""Models behind a URL (`gs://bucket/model`, `s3://`, `file://`): small files are fetched, parameters are not.

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
from jaxserve.models.bucket import write_remote
from jaxserve.models.orbax_store import PARAMS, REMOTE

URL = re.compile(r"(?P<scheme>gs|s3|file):/+(?P<rest>.*?)/*")
"""What is behind a URL."""
_SMALL = re.compile(r"(?!.+\.(safetensors|bin|pth|pt|gguf|h5|msgpack|onnx)$)[^/]+|additional_chat_templates/[^/]+")
_PATIENCE = 9.0
"""Seconds that a bucket has to list its files; tensorstore itself would go on for minutes."""


def local_model_dir(model: str | Path) -> Path:
    """The directory to load a model from: a local path itself, or for a URL a temporary directory that stands for it.

    That directory holds configuration, tokenizer and templates, and says where the parameters are; it is removed when
    the process ends.

    Raises:
        ModelLoadError: the URL can't be read, or there is no converted model.
    """
    url = url_of(model)
    if url is None:
        return Path(model)
    try:
        return _fetch(url)
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelLoadError(f"{url} can't be read: {_cause(error)}.") from None


def url_of(model: str | Path) -> str | None:
    """The URL that is meant, or None; pathlib merges slashes."""
    match = URL.fullmatch(str(model))
    if match is None:
        return None
    return f"{match['scheme']}://{'/' if match['scheme'] == 'file' else ''}{match['rest']}"


def _fetch(url: str) -> Path:
    store = ts.KvStore.open(url + "/").result()
    names = [key.decode() for key in store.list().result(timeout=_PATIENCE)]
    converted = any(name.startswith(f"{PARAMS}/") for name in names)
    weights = [name for name in names if re.fullmatch(r"[^/]+\.safetensors", name)]
    if "config.json" not in names or not (converted or weights):
        raise ModelLoadError(
            f"{url} holds no model that `jaxserve convert` wrote (config.json and {PARAMS}/), and none in the hub's "
            "layout (config.json and *.safetensors)."
        )
    temporary = tempfile.mkdtemp(prefix="jaxserve-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    directory = Path(temporary) / url.rsplit("/", 1)[-1]
    for name in filter(_SMALL.fullmatch, names):
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read(name).result().value)
    if converted:
        (directory / REMOTE).write_text(f"{url}/{PARAMS}", encoding="utf-8")
    else:
        write_remote(directory, url, weights)
    return directory


def upload(directory: Path, url: str) -> None:
    """Copy a directory's files behind a URL, config.json last: until it is there, there is no model.

    Raises:
        ModelLoadError: something is there already, or it can't be written.
    """
    try:
        store = ts.KvStore.open(url + "/").result()
        if store.list().result(timeout=_PATIENCE):
            raise ModelLoadError(f"{url} is not empty.")
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda path: path == directory / "config.json"):
            store.write(str(path.relative_to(directory)), path.read_bytes()).result()
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelLoadError(f"{url} can't be written: {_cause(error)}.") from None


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {_PATIENCE:.0f} s"
    return str(error).split(" [")[0].splitlines()[0]
