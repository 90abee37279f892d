"""Looking into the model: log-likelihoods, logits and hidden states of given tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxserve import models
from jaxserve.engine.requests import Delta, TokenLogprob
from jaxserve.llm.html import tokens_html
from jaxserve.text.tokenizers.tokenizer import Tokenizer

_PAGE = 16
_SHORTEST = 32
"""Positions of the smallest program; lengths are rounded up to its doublings, each of which compiles once."""

FloatArray = npt.NDArray[np.float32]


@dataclass
class Score:
    """How likely the model finds a text, token by token."""

    token_ids: tuple[int, ...]
    logprobs: list[TokenLogprob | None] = field(default_factory=list)
    """Of each token given those before it; None for the first."""
    tokenizer: Tokenizer | None = field(default=None, repr=False, compare=False)

    @property
    def total(self) -> float:
        """Log-likelihood of the text (natural log), its first token not counted."""
        return sum(entry.logprob for entry in self.logprobs if entry is not None)

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood."""
        return float(np.exp(-self.total / max(1, len(self.token_ids) - 1)))

    def add(self, delta: Delta) -> None:
        """Takes over what a step told of the prompt."""
        self.logprobs.extend(delta.prompt_logprobs or ())

    def _repr_html_(self) -> str:
        return tokens_html("", self.logprobs, self.tokenizer)


class Inspector:
    """Runs the model on whole texts, beside the engine: a cache of its own for each call, a program for each length."""

    def __init__(self, model: models.LoadedModel) -> None:
        self._model = model
        self._groups = len(models.cache_layout(model.config).windows)
        self._program = lru_cache(maxsize=None)(self._compile)

    def logits(self, ids: tuple[int, ...]) -> FloatArray:
        """[len(ids), V]: of the token that follows each."""
        return self._run(ids)[0]

    def hidden(self, ids: tuple[int, ...]) -> FloatArray:
        """[len(ids), D]: after the final norm."""
        return self._run(ids)[1]

    def _run(self, ids: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        length = _SHORTEST
        while length < len(ids):
            length *= 2
        tokens = np.zeros(length, np.int32)
        tokens[: len(ids)] = ids
        model = self._model
        with jax.set_mesh(model.mesh):
            cache = models.init_cache(self._cache(length))
            out = self._program(length)(model.leaves, cache, tokens, np.int32(len(ids)))
        logits, hidden = (np.asarray(part, np.float32)[: len(ids)] for part in out)
        return logits, hidden

    def _cache(self, length: int) -> dict[str, jax.ShapeDtypeStruct]:
        pages = self._groups * (length // _PAGE) + 1
        model = self._model
        return models.cache_spec(
            model.config,
            num_pages=pages,
            page_size=_PAGE,
            dtype=model.dtype,
            mesh=model.mesh,
            backends=model.backends,
        )

    def _compile(self, length: int) -> Any:
        return jax.jit(partial(_forward, self._model.graphdef, self._groups))


def _forward(
    graphdef: models.GraphDef[Any],
    groups: int,
    leaves: list[jax.Array],
    cache: models.Cache,
    tokens_T: jax.Array,
    count: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    length = tokens_T.shape[0]
    columns = length // _PAGE
    ends = jnp.stack([jnp.int32(0), count])
    tables = tuple(1 + group * columns + jnp.arange(columns, dtype=jnp.int32)[None] for group in range(groups))
    meta = models.StepMeta.from_rows(ends, ends[1:], tables, length, _PAGE)
    out = models.forward(graphdef, leaves, tokens_T, cache, meta, jnp.arange(length))
    return out.logits_NV, out.hidden_TD
