"""Converted models behind a URL: on disk, and in a bucket of a stand-in for Google Cloud Storage."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models.conversion import convert
from jaxserve.models.remote import local_model_dir

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
    """The part of Google Cloud Storage's JSON interface that reads a bucket, over a directory."""

    root: Path

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        prefix = urllib.parse.parse_qs(url.query).get("prefix", [""])[0]
        if url.path.endswith("/b/bucket/o"):
            names = [str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()]
            items = [{"name": name, "generation": "1"} for name in sorted(names) if name.startswith(prefix)]
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
        "import sys; from pathlib import Path; from jaxserve import models; "
        "from jaxserve.models.remote import local_model_dir as local; "
        "model = models.load_model(local(Path(sys.argv[1]))); print(sum(leaf.nbytes for leaf in model.leaves))"
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            **os.environ,
            "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{server.server_port}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        }
        command = [sys.executable, "-c", script]
        found, absent = (
            subprocess.run([*command, f"gs://bucket/{name}"], env=env, capture_output=True, text=True, timeout=60)
            for name in ("stored", "nothing")
        )
        server.shutdown()
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) == sum(leaf.nbytes for leaf in models.load_model(stored).leaves)
    assert "gs://bucket/nothing holds no model that `jaxserve convert` wrote" in absent.stderr


@pytest.mark.parametrize("folder", ["empty", "phi3"])
def test_urls_that_hold_no_model(folder, tmp_path):
    directory = FIXTURES / "phi3" if folder == "phi3" else tmp_path
    with pytest.raises(ModelLoadError, match="holds no model that `jaxserve convert` wrote"):
        local_model_dir(f"file://{directory}")
