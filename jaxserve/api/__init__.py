"""HTTP to requests and back (FastAPI). Sees no arrays; talks to the engine through `submit` and `abort` only.

In: bytes of a request. `schema` says what is valid, `lower` turns it into engine `Request`s and refuses everything
wrong. Out: `lift` turns `Delta`s into the contract's chunks; `sse` streams them, `fold` joins them into one response.
May import `jaxserve.engine.requests`, `jaxserve.sampling.params`, `jaxserve.errors` and `jaxserve.text`.
"""
