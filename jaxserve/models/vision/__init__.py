"""Image towers (Flax NNX): patches of pixels to embeddings that take the place of token embeddings."""
