import sys
from pathlib import Path

# Tests are imported by path, so the modules they share must be found by name.
sys.path.insert(0, str(Path(__file__).parent))

from file_server import hidden, shown  # noqa: F401 - fixtures
