"""A pytest plugin that runs llama.cpp's own server tests against this server.

    cd llama.cpp/tools/server/tests
    DEBUG_EXTERNAL=1 PORT=8000 JUDGED_MODEL=stories260K PYTHONPATH=.../tests/judges pytest -p llama_server unit/...

Their server has one model and needs no `model` in a request: it is added. Their presets start servers with options of
that engine; here all tests see one server as it is.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import pytest

sys.modules.setdefault("wget", types.ModuleType("wget"))  # they download models with it, which nobody asks for here


def _named(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    return data if data.get("model") is not None else {**data, "model": os.environ["JUDGED_MODEL"]}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Requests of their helpers get the model's name."""
    import utils  # theirs

    for name in ("make_request", "make_stream_request"):
        setattr(utils.ServerProcess, name, _naming(getattr(utils.ServerProcess, name)))


def _naming(ask: Any) -> Any:
    def named(self: Any, method: str, path: str, data: Any = None, *rest: Any, **more: Any) -> Any:
        return ask(self, method, path, _named(data), *rest, **more)

    return named
