"""Requests to tokens: scheduler, pages, the jitted step, the runner that owns the device arrays, the engine thread.

In: `Request` with a sink. Out: `Delta`s. May import models, sampling, and of text only grammars and stop strings.
`scheduler`, `paging` and what they stand on import no arrays.
"""
