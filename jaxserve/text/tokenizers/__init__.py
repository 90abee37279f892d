"""Tokens to text and back: the kinds of tokenizer files and incremental decoding. No jax here."""
