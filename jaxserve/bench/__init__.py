"""Load for any OpenAI-compatible server, and what came of it.

`traces` and `load` say what is asked and when, `words` makes the prompts, `target` speaks HTTP, `drive` sends, and
`report`, `table` and `plots` tell. Nothing here knows the engine: the server is measured from outside, as a client
sees it.
"""

from jaxserve.bench.drive import run
from jaxserve.bench.load import Ask, Synthetic, synthetic
from jaxserve.bench.report import Report
from jaxserve.bench.target import Target
from jaxserve.bench.traces import read_trace

__all__ = ["Ask", "Report", "Synthetic", "Target", "read_trace", "run", "synthetic"]
