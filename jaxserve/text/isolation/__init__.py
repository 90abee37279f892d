"""Work of requests that nothing else bounds: in processes of its own, with limits that the kernel enforces.

In: a `Task` that is prepared once, and its arguments; out: its result, or `Overrun`. No jax here: a process starts in a
fifth of a second; those that do the work are forked from it in milliseconds.
"""

from jaxserve.text.isolation.limits import Limits, Overrun
from jaxserve.text.isolation.workers import Task, Workers

__all__ = ["Limits", "Overrun", "Task", "Workers"]
