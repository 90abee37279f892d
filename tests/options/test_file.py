"""The configuration file."""

from __future__ import annotations

import pytest

from jaxserve.errors import ModelLoadError
from jaxserve.options import ApiOptions, EngineOptions, HostsOptions, ServeOptions, declared
from jaxserve.options.file import read_config

EVERY = list(declared(ServeOptions, EngineOptions, HostsOptions, ApiOptions))


def read(tmp_path, text):
    path = tmp_path / "jaxserve.toml"
    path.write_text(text)
    return read_config(path, EVERY)


def test_values_are_as_written(tmp_path):
    text = 'port = 1\nlenient = true\napi_keys = ["a", "b"]\nkv_memory = "2GiB"\nmesh = 2\nshutdown_timeout = 3\n'
    assert read(tmp_path, text) == {
        "port": 1,
        "lenient": True,
        "api_keys": ["a", "b"],
        "kv_memory": "2GiB",
        "mesh": "2",
        "shutdown_timeout": 3,
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "no option 'prot'; did you mean port?"),
        ("max-waiting = 1", "no option 'max-waiting'; did you mean max_waiting?"),
        ("[limits]\nmax_prompts = 1", "no option 'limits'"),
        ("config = 'other.toml'", "no option 'config'"),
        ("zzz = 1", "no option 'zzz'$"),
        ("port = '1'", "port must be a whole number, not '1'"),
        ("port = true", "port must be a whole number, not True"),
        ("port = 1.5", "port must be a whole number, not 1.5"),
        ("lenient = 1", "lenient must be true or false, not 1"),
        ("lenient = 'yes'", "lenient must be true or false"),
        ("shutdown_timeout = 'x'", "shutdown_timeout must be a number"),
        ("host = 1", "host must be a text"),
        ("chat_template = false", "chat_template must be a text"),
        ("api_keys = 'a'", "api_keys must be a list of texts, not 'a'"),
        ("api_keys = [1]", "api_keys must be a list of texts"),
        ("kv_memory = 1.5", "kv_memory must be a text or a whole number"),
        ("dtype = ['x']", "dtype must be a text"),
        ("port = ", "is not TOML"),
    ],
)
def test_other_keys_and_types_are_refused_by_name(tmp_path, text, says):
    with pytest.raises(ModelLoadError, match=says) as refused:
        read(tmp_path, text)
    assert "jaxserve.toml" in str(refused.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelLoadError, match=r"--config .*none.toml can't be read: No such file"):
        read_config(tmp_path / "none.toml", EVERY)
