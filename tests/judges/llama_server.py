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
    return {"model": os.environ["JUDGED_MODEL"], **data} if isinstance(data, dict) else data


@pytest.fixture(scope="session", autouse=True)
def load_server_presets() -> None:
    """Instead of downloading models and starting servers."""
    import utils  # theirs

    for name in ("make_request", "make_stream_request"):
        original = getattr(utils.ServerProcess, name)

        def asked(
            self: Any, method: str, path: str, data: Any = None, *rest: Any, _original: Any = original, **more: Any
        ) -> Any:
            return _original(self, method, path, _named(data), *rest, **more)

        setattr(utils.ServerProcess, name, asked)
