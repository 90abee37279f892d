"""An untrained model behind the whole server, in this process: what it writes is noise wherever nothing forbids it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from safetensors.numpy import save_file

from jaxserve.api.app import create_app
from jaxserve.api.ports import TextServices
from jaxserve.api.settings import ModelInfo, Settings
from jaxserve.options import EngineOptions
from jaxserve.prepared import prepare
from jaxserve.startup import Started, start
from jaxserve.text.chat import ChatTemplate
from jaxserve.text.formats import FORMATS, bind
from jaxserve.text.grammar.constraint import ConstraintBuilder

EOS = "<eos>"
PIECES = ["th", "he", "in", "er", " a", " t", '{"', '":', '",', '"}', "},", ' "', "],", "[]", "{}", "\n\n", "10", "00"]
CONTEXT = 480
TEMPLATE = (
    "{% if tools %}{% for t in tools %}{{ t.function.name }} {% endfor %}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def markers() -> list[str]:
    """The markers of every format that models have as single tokens."""
    texts: dict[str, None] = {}
    for each in FORMATS.values():
        thinking = (each.thinking.open, each.thinking.close) if each.thinking else ()
        for text in (*each.stops, *each.calls.markers, *thinking):
            if text[0] + text[-1] in ("<>", "[]", "｜｜") or text == "[e~[":
                texts[text] = None
    return list(texts)


def write_model(directory: Path) -> None:
    """config.json, random weights, and a byte-level tokenizer with every marker as a token of its own."""
    tokenizer = _tokenizer([EOS, *markers()])
    vocab = len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"])
    hidden, ff, rng = 32, 64, np.random.default_rng(0)
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, hidden),
        "self_attn.v_proj": (hidden, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (ff, hidden),
        "mlp.up_proj": (ff, hidden),
        "mlp.down_proj": (hidden, ff),
    }
    shapes |= {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}
    weights = {
        name: rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5) for name, shape in shapes.items()
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": ff,
        "vocab_size": vocab,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "eos_token_id": next(t["id"] for t in tokenizer["added_tokens"] if t["content"] == EOS),
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}))


def _tokenizer(added: list[str]) -> dict[str, Any]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    letters = [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]
    spelled = ["".join(letters[byte] for byte in piece.encode()) for piece in PIECES]
    vocab = [*letters, *spelled]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "added_tokens": [{"id": len(vocab) + i, "content": text, **flags} for i, text in enumerate(added)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(vocab)},
            "merges": [f"{a} {b}" for a, b in spelled],
        },
    }


class RandomModel:
    """The engine and, for every format, an app around it.

    Args:
        directory: for the model's files.
        pages: KV pages of 16 positions.
        options: of the engine.
    """

    def __init__(self, directory: Path, pages: int = 4000, **options: Any) -> None:
        write_model(directory)
        page_bytes = 16 * 2 * 2 * 16 * 4  # positions, keys and values, heads, dimensions, float32
        if options.get("dtype") == "bfloat16":
            page_bytes //= 2
        sizes = {"max_num_seqs": 16, "max_model_len": CONTEXT, "token_buckets": (16, 128)}
        options = {**sizes, "kv_memory": pages * page_bytes, **options}
        self.started: Started = start(prepare(EngineOptions(directory, **options)))
        self._apps: dict[tuple[str, bool], Any] = {}

    def close(self) -> None:
        self.started.engine.close()

    def app(self, chat_format: str, *, opened: bool = False) -> Any:
        """The server as it is for a model of this format; `opened`: its template opens the reasoning."""
        if (chat_format, opened) not in self._apps:
            tokenizer, vocab = self.started.tokenizer, self.started.model_config.vocab_size
            template = ChatTemplate({"default": TEMPLATE + ("<think>" if opened else "")}, {})
            bound = bind(FORMATS[chat_format], tokenizer, template)
            text = TextServices(tokenizer, bound, ConstraintBuilder(bound, vocab_size=vocab))
            model = ModelInfo(("random",), CONTEXT, vocab, 1_700_000_000)
            self._apps[chat_format, opened] = create_app(self.started.engine, text, Settings(model=model))
        return self._apps[chat_format, opened]

    def bias(self, texts: dict[str, float]) -> dict[str, float]:
        """`logit_bias` for tokens by their text."""
        ids = {text: self.started.tokenizer.id_of(text) for text in texts}
        return {str(ids[text]): value for text, value in texts.items() if ids[text] is not None}

    def ask(
        self, chat_format: str, path: str, bodies: list[dict[str, Any]], *, opened: bool = False
    ) -> list[dict[str, Any]]:
        """The answers to some requests, all under way at once; {"refused": ...} for a 422."""
        return asyncio.run(self._ask(self.app(chat_format, opened=opened), path, bodies))

    async def _ask(self, app: Any, path: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://random", timeout=300) as client:
            answers = await asyncio.gather(*(client.post(path, json={"model": "random", **body}) for body in bodies))
        for answer in answers:
            assert answer.status_code in (200, 422), answer.text
        return [each.json() if each.status_code == 200 else {"refused": each.json()["error"]} for each in answers]
