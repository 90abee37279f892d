"""Tokens to meaning and back: tokenizers, incremental detokenizer, stop strings, chat templates. No jax here."""
