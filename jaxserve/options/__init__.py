"""Every option of the product, declared once: name, type, default, range, help, group and the commands that take it.

Out of these declarations come the command line, the environment variables `JAXSERVE_*`, the keys of the file that
`--config` names, the arguments of `LLM`, and docs/configuration.md. Adding an option is one field here and its place
of effect. Imports only `config` and `errors`.
"""

from jaxserve.options.api import ApiOptions, Limits
from jaxserve.options.bench import BenchOptions
from jaxserve.options.declaration import Declared, Options, build, declared
from jaxserve.options.engine import EngineOptions, platform_defaults
from jaxserve.options.hosts import HostsOptions
from jaxserve.options.serve import ServeOptions

__all__ = [
    "ApiOptions",
    "BenchOptions",
    "Declared",
    "EngineOptions",
    "HostsOptions",
    "Limits",
    "Options",
    "ServeOptions",
    "build",
    "declared",
    "platform_defaults",
]
