"""`python -m jaxserve.native`: compiles the kernels for every instruction set of this kind of machine, for a wheel."""

from __future__ import annotations

import platform
import sys

from jaxserve.native.build import BuildError, build_prebuilt
from jaxserve.native.instruction_sets import INSTRUCTION_SETS


def main() -> int:
    """Writes libraries beside the sources; the exit code is 1 where one can't be compiled."""
    for target in INSTRUCTION_SETS:
        if platform.machine() in (target.machines or (platform.machine(),)):
            try:
                print(build_prebuilt(target))  # noqa: T201
            except BuildError as error:
                print(error, file=sys.stderr)  # noqa: T201
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
