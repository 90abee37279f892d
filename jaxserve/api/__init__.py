"""HTTP to requests and back (FastAPI). Sees no arrays; talks to the engine through `submit` and `abort` only."""
