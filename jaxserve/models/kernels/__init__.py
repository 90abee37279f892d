"""Attention backends behind one interface (`backend.AttentionBackend`): `blocked` is plain JAX and runs everywhere."""
