"""Logits to tokens: pure functions of arrays. Imports nothing of models, engine, text or api."""
