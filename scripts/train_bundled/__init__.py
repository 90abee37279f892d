"""Trains the story model that ships inside the package: text generator, tokenizer, trainer, export."""
