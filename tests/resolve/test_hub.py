"""Models of the hub, from a stand-in that speaks its protocol on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from jaxserve.resolve.hub import HubModel, hub_model

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Qwen/Qwen3-0.6B", HubModel("Qwen/Qwen3-0.6B", None, None)),
        ("hf://org/name@v1.0", HubModel("org/name", None, "v1.0")),
        ("hf:/org/name", HubModel("org/name", None, None)),
        ("org/name/q4.gguf@main", HubModel("org/name", "q4.gguf", "main")),
        ("org/name/sub/q4.gguf", HubModel("org/name", "sub/q4.gguf", None)),
        ("name", None),
        ("/org/name", None),
        ("a/b/c", None),
        ("../model", HubModel("../model", None, None)),
    ],
)
def test_ids(text, expected):
    assert hub_model(text) == expected


class Hub(http.server.BaseHTTPRequestHandler):
    """Listing and files of one repository 'org/tiny' at one commit; 'org/gated' and others are refused."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path} {self.headers.get('Authorization')}")
        if "org/gated" in path:
            self.answer(403, b"{}", body, **{"X-Error-Code": "GatedRepo"})
        elif "org/tiny" not in path:
            self.answer(404, b"{}", body, **{"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/models/"):
            if path.endswith("/revision/old"):
                self.answer(404, b"{}", body, **{"X-Error-Code": "RevisionNotFound"})
                return
            if "/tree/" in path:
                tree = [{"type": "file", "path": n, "size": len(c), "oid": n} for n, c in self.files.items()]
                self.answer(200, json.dumps(tree).encode(), body)
                return
            siblings = [{"rfilename": name} for name in self.files]
            self.answer(200, json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode(), body)
        else:
            content = self.files[path.split("/resolve/")[1].partition("/")[2]]
            tag = hashlib.sha1(content).hexdigest()
            self.answer(200, content, body, **{"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def answer(self, status, content, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    """The stand-in; files and requests are its attributes."""
    folder = MODELS / "qwen3_one_layer"
    names = ("config.json", "model.safetensors")
    files = {name: (folder / name).read_bytes() for name in names}
    files |= {"tokenizer.json": b"{}", "README.md": b"no", "pytorch_model.bin": b"no", "onnx/model.onnx": b"no"}
    handler = type("Handler", (Hub,), {"files": files, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        handler.address = f"http://127.0.0.1:{server.server_port}"
        yield handler
        server.shutdown()


def ask(models, cache, address):
    """Resolves models in a process of its own (the library reads its settings once): what came of each."""
    script = (
        "import json, sys\n"
        "from jaxserve.errors import ModelLoadError\n"
        "from jaxserve.resolve import resolve_model\n"
        "out = []\n"
        "for model in sys.argv[1:]:\n"
        "    try:\n"
        "        found = resolve_model(model)\n"
        "        out.append([found.name, sorted(p.name for p in found.iterdir())])\n"
        "    except ModelLoadError as error:\n"
        "        out.append(str(error))\n"
        "print(json.dumps(out))\n"
    )
    env = {**os.environ, "HF_HOME": str(cache), "HF_ENDPOINT": address, "HF_TOKEN": "hf_secret", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script, *models], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_needed_is_fetched_once_and_then_served_without_the_hub(hub, tmp_path):
    needed = ["config.json", "model.safetensors", "tokenizer.json"]
    wanted = ("org/tiny", "hf://org/tiny@old", "org/gated", "org/none", "org/tiny/q4.gguf")
    first, old, gated, none, file = ask(wanted, tmp_path, hub.address)
    assert first == ["tiny", needed]
    assert old == "org/tiny has no revision 'old'."
    assert "accepted its terms" in gated
    assert "neither a local directory org/none nor such a model" in none
    assert file == "org/tiny has no file q4.gguf."
    assert all("Bearer hf_secret" in line for line in hub.asked if "org/tiny" in line), hub.asked
    assert not any("README" in line or ".bin" in line or "onnx" in line for line in hub.asked)
    nobody = "http://127.0.0.1:9"
    again, other = ask(("org/tiny", "org/other"), tmp_path, nobody)
    assert again == first
    assert f"{nobody} can't be reached to fetch it" in other


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a-Q4_0.gguf", "a-Q8_0.gguf"], "several GGUF files: name one, such as org/tiny/a-Q4_0.gguf"),
        (["pytorch_model.bin", "config.json"], "holds neither"),
    ],
)
def test_what_cannot_be_served(names, says):
    from jaxserve.errors import ModelLoadError
    from jaxserve.resolve.hub import _wanted

    with pytest.raises(ModelLoadError, match=says):
        _wanted(HubModel("org/tiny", None, None), names)


def test_shards_and_the_parts_of_a_split_file_are_wanted_together():
    from jaxserve.resolve.hub import _wanted

    model = HubModel("org/tiny", None, None)
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = "model.safetensors.index.json"
    names = ["config.json", *shards, index, "consolidated.safetensors", "tokenizer.model", "original/x.pth"]
    assert _wanted(model, names) == ["config.json", "tokenizer.model", index, *shards]
    parts = [f"q-0000{number}-of-00002.gguf" for number in (1, 2)]
    assert _wanted(model, [*parts, "mmproj-x.gguf"]) == parts
