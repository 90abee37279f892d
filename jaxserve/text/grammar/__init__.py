"""Which tokens may come next: requests to grammars, grammars to masks (llguidance). No jax here."""
