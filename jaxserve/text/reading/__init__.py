"""Output to meaning while it arrives: complete characters, stop texts, the parts of a message. No jax here."""
