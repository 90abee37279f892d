"""Tokens to logits (Flax NNX): config-driven decoders, their families, weight loading, sharding, attention kernels.

In: packed tokens, the KV cache and attention metadata. Out: hidden states, logits, the cache. Imports nothing of sampling,
engine, text or api.
"""
