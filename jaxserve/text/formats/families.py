"""All formats, by name. A new family is a new file and a line here."""

from __future__ import annotations

from jaxserve.text.formats.deepseek_r1 import DEEPSEEK_R1
from jaxserve.text.formats.deepseek_v31 import DEEPSEEK_V31
from jaxserve.text.formats.deepseek_v32 import DEEPSEEK_V32
from jaxserve.text.formats.firefunction import FIREFUNCTION
from jaxserve.text.formats.generic import GENERIC
from jaxserve.text.formats.glm45 import GLM45
from jaxserve.text.formats.glm47 import GLM47
from jaxserve.text.formats.gpt_oss import GPT_OSS
from jaxserve.text.formats.kimi_k2 import KIMI_K2, KIMI_K2_THINKING
from jaxserve.text.formats.llama3 import LLAMA3, LLAMA3_PYTHONIC
from jaxserve.text.formats.minimax_m2 import MINIMAX_M2
from jaxserve.text.formats.mistral import MISTRAL, MISTRAL_NAMED
from jaxserve.text.formats.qwen3 import HERMES, QWEN3
from jaxserve.text.formats.qwen3_coder import QWEN3_5, QWEN3_CODER
from jaxserve.text.formats.spec import Format

FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        QWEN3,
        HERMES,
        QWEN3_CODER,
        QWEN3_5,
        LLAMA3,
        LLAMA3_PYTHONIC,
        MISTRAL,
        MISTRAL_NAMED,
        FIREFUNCTION,
        DEEPSEEK_R1,
        DEEPSEEK_V31,
        DEEPSEEK_V32,
        KIMI_K2,
        KIMI_K2_THINKING,
        GLM45,
        GLM47,
        MINIMAX_M2,
        GPT_OSS,
        GENERIC,
    )
}
