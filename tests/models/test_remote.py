"""Converted models behind a URL: on disk, and in a bucket of a stand-in for Google Cloud Storage."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models import bucket
from jaxserve.models.conversion import convert
from jaxserve.models.remote import local_model_dir
from jaxserve.models.sources import Piece

FIXTURES = Path(__file__).parents[1] / "fixtures" / "models"


@pytest.fixture
def stored(tmp_path):
    """A converted one-layer model, to be damaged."""
    convert(FIXTURES / "qwen3_one_layer", tmp_path / "stored")
    return tmp_path / "stored"


@pytest.mark.parametrize("spelling", ["{}", "file://{}", "file:{}"])
def test_urls(stored, spelling):
    """pathlib makes one slash of two; the name of the model stays."""
    (stored / "additional_chat_templates").mkdir()
    (stored / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    local = local_model_dir(spelling.format(stored))
    assert local.name == "stored"
    assert (local / "additional_chat_templates" / "tool_use.jinja").read_text() == "tools"
    for one, two in zip(models.load_model(local).leaves, models.load_model(stored).leaves, strict=True):
        np.testing.assert_array_equal(one, two)


class Bucket(http.server.BaseHTTPRequestHandler):
    """The part of Google Cloud Storage's JSON interface that reads and fills a bucket, over a directory."""

    root: Path

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        told = {key: values[0] for key, values in urllib.parse.parse_qs(url.query).items()}
        prefix, first, end = (told.get(key, "") for key in ("prefix", "startOffset", "endOffset"))
        if url.path.endswith("/b/bucket/o"):
            names = [str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()]
            wanted = [name for name in names if name.startswith(prefix) and name >= first and (not end or name < end)]
            items = [{"name": name, "generation": "1"} for name in sorted(wanted)]
            self.answer(200, json.dumps({"items": items}).encode())
            return
        file = self.root / urllib.parse.unquote(url.path.split("/b/bucket/o/")[1])
        if not file.is_file():
            self.answer(404, b"{}")
            return
        data, wanted = file.read_bytes(), re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            self.answer(200, data)
        else:
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            span = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            self.answer(206, data[first : last + 1], **span)

    def do_POST(self):
        name = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["name"][0]
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200, json.dumps({"name": name, "generation": "1"}).encode())

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "x-goog-generation": 1, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_gs_urls_against_a_stand_in(stored):
    """Google's protocol from a local server, in a process of its own: tensorstore reads its address once."""
    handler = type("Handler", (Bucket,), {"root": stored.parent})
    script = (
        "from pathlib import Path\n"
        "from jaxserve import models\n"
        "from jaxserve.models.conversion import convert\n"
        "from jaxserve.models.remote import local_model_dir as local\n"
        "convert(local(Path('gs://bucket/hub')), Path('gs://bucket/written'))\n"
        "for name in ('stored', 'hub', 'written', 'nothing'):\n"
        "    model = models.load_model(local(Path(f'gs://bucket/{name}')))\n"
        "    print(sum(leaf.nbytes for leaf in model.leaves))\n"
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            **os.environ,
            "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{server.server_port}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        }
        command = [sys.executable, "-c", script]
        shutil.copytree(FIXTURES / "qwen3_one_layer", stored.parent / "hub")
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
        server.shutdown()
    size = sum(leaf.nbytes for leaf in models.load_model(stored).leaves)
    assert done.stdout.split() == [str(size)] * 3, done.stderr
    written = models.load_model(stored.parent / "written")
    for one, two in zip(written.leaves, models.load_model(stored).leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
    assert "gs://bucket/nothing holds no model that `jaxserve convert` wrote" in done.stderr


def test_urls_that_hold_no_model(tmp_path):
    with pytest.raises(ModelLoadError, match=r"holds no model that `jaxserve convert` wrote .* and none in the hub's"):
        local_model_dir(f"file://{tmp_path}")


@pytest.mark.parametrize("name", ["phi3", "gpt_oss_mxfp4", "deepseek_v3_fp8", "gemma3"])
def test_hub_layout_behind_a_url_is_read_in_ranges(name, monkeypatch):
    """Parts of fused tensors, rows in turn, scales: the parameters of the local directory, no byte read twice."""
    read = []
    plain = bucket.RemoteFile.ranges
    monkeypatch.setattr(bucket, "_CHUNK", 512)
    monkeypatch.setattr(bucket.RemoteFile, "ranges", lambda file, spans: read.extend(spans) or plain(file, spans))
    local = local_model_dir(f"file://{FIXTURES / name}")
    assert not list(local.glob("*.safetensors"))
    loaded, expected = models.load_model(local), models.load_model(FIXTURES / name)
    for one, two in zip(loaded.leaves, expected.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
    sizes = [stop - start for start, stop in read]
    assert max(sizes[2:]) <= 512
    assert sum(sizes) <= 1.35 * (FIXTURES / name / "model.safetensors").stat().st_size


def test_a_part_of_a_tensor_is_a_part_of_its_bytes(tmp_path, monkeypatch):
    """What one device of many needs: its rows."""
    save_file({"x": np.arange(64 * 32, dtype=np.float32).reshape(64, 32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(bucket, "_CHUNK", 256)
    tensor = bucket.open_remote(local_model_dir(f"file://{tmp_path}"))["x"]
    read = []
    plain = bucket.RemoteFile.ranges
    monkeypatch.setattr(bucket.RemoteFile, "ranges", lambda file, spans: read.extend(spans) or plain(file, spans))
    out = np.empty((4, 32), np.float32)
    Piece(tensor, lambda t, _: t[32:], None).read((slice(8, 12), slice(None)), out)
    np.testing.assert_array_equal(out, np.arange(64 * 32).reshape(64, 32)[40:44])
    assert sum(stop - start for start, stop in read) == 4 * 32 * 4


def test_damaged_files_behind_a_url(tmp_path):
    for content, says in (
        (b"\xff" * 40, "not a safetensors file"),
        (b"\x10" + b"\0" * 7 + b"{}", "can.t be read|truncated"),
    ):
        (tmp_path / "config.json").write_text((FIXTURES / "phi3" / "config.json").read_text())
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelLoadError, match=says):
            models.load_model(local_model_dir(f"file://{tmp_path}"))


def test_convert_writes_behind_a_url(tmp_path):
    convert(FIXTURES / "qwen3_one_layer", Path(f"file://{tmp_path}/out"))
    local = models.load_model(FIXTURES / "qwen3_one_layer")
    for one, two in zip(models.load_model(tmp_path / "out").leaves, local.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
    with pytest.raises(ModelLoadError, match="is not empty"):
        convert(FIXTURES / "qwen3_one_layer", Path(f"file://{tmp_path}/out"))
