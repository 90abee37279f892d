"""langchain-tests' standard suites of chat models, for the clients of OpenAI and of Fireworks AI.

Some tests ask for what only a capable model does (call the right tool unasked, answer with certain words): with the
bundled story model these fail, see docs/judges.md.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_tests")
from langchain_fireworks import ChatFireworks
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Suite(ChatModelIntegrationTests):
    """What the server offers."""

    @pytest.fixture(autouse=True)
    def _server(self, judged_url: str, judged_model: str) -> None:
        type(self).url, type(self).name = judged_url, judged_model

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.name, "base_url": self.base_url, "api_key": "none", "max_tokens": 100, "temperature": 0}

    @property
    def supports_anthropic_inputs(self) -> bool:
        return False

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestOpenAI(Suite):
    @property
    def base_url(self) -> str:
        return self.url + "/v1"

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def enable_vcr_tests(self) -> bool:
        return False


class TestFireworks(Suite):
    @property
    def base_url(self) -> str:
        return self.url + "/inference/v1"

    @property
    def chat_model_class(self) -> type[ChatFireworks]:
        return ChatFireworks
