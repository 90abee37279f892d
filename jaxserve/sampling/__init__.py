"""Logits to tokens: pure functions of arrays. Imports nothing of models, engine, text or api.

Letters: N samples, S slots, V vocabulary, n chunks of G tokens, K likeliest tokens, M entries of a list, W words of a
mask, C columns.
"""
