"""Weights of layers alike inside one loop: each where it lies, chosen by the layer's number.

XLA:CPU compiles a layer's kernels once for each layer when layers are unrolled, and copies each layer's weights out of
their stack when they are scanned. Here the loop's body is compiled once, and a `lax.switch` around each product passes
the chosen layer's weight by reference: its branches are single products, which are routines that need no compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

T = TypeVar("T")


@partial(jax.tree_util.register_dataclass, data_fields=("arrays", "index"), meta_fields=())
@dataclass(frozen=True)
class LayerChoice:
    """The parameter of one of several layers; stands where the array would."""

    arrays: tuple[jax.Array, ...]
    """Of each layer."""
    index: jax.Array
    """int32, whose it is."""

    def __getitem__(self, key: object) -> LayerChoice:
        """Itself: `[...]` is how modules read their parameters."""
        if key is not ...:
            raise TypeError("a parameter of a looped layer can only be used whole")
        return self


def choose(states: Sequence[T], index: jax.Array) -> T:
    """The parameters of one of several layers: matrices as choices, vectors (norms, biases) copied out."""

    def one(*arrays: jax.Array) -> Any:
        if arrays[0].ndim > 1:
            return LayerChoice(arrays, index)
        return lax.dynamic_index_in_dim(jnp.stack(arrays), index, keepdims=False)

    chosen: T = jax.tree.map(one, *states)
    return chosen


def with_layer(function: Callable[[Any], T], weights: Any) -> T:
    """`function` of weights in which there may be choices (all of one layer), passed to it as plain arrays."""
    choices = [leaf for leaf in jax.tree.leaves(weights, is_leaf=_is_choice) if _is_choice(leaf)]
    if not choices:
        return function(weights)
    branches = [partial(_of_layer, function, weights, layer) for layer in range(len(choices[0].arrays))]
    result: T = lax.switch(choices[0].index, branches)
    return result


def _of_layer(function: Callable[[Any], T], weights: Any, layer: int) -> T:
    return function(
        jax.tree.map(lambda leaf: leaf.arrays[layer] if _is_choice(leaf) else leaf, weights, is_leaf=_is_choice)
    )


def _is_choice(leaf: object) -> bool:
    return isinstance(leaf, LayerChoice)
