"""What the devices and the host do for some seconds, as jax's profiler records it, while requests run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import jax

from jaxserve.errors import Overloaded


class Profiler:
    """Writes profiles below a directory, one at a time.

    Args:
        directory: gets a folder for each profile, which TensorBoard and XProf open.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def record(self, seconds: float) -> Path:
        """Records for some seconds, blocking. Returns the folder.

        Raises:
            Overloaded: somebody is recording already.
        """
        if not self._lock.acquire(blocking=False):
            raise Overloaded("a profile is being recorded already")
        try:
            folder = self._directory / time.strftime("%Y%m%dT%H%M%S")
            with jax.profiler.trace(str(folder)):
                time.sleep(seconds)
            return folder
        finally:
            self._lock.release()
