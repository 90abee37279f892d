"""Values that are written in a notation of their own."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def parse_bytes(text: str) -> int:
    """Reads '2GiB', '512M', '1000000'.

    Raises:
        ValueError: not a positive size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B?\s*", text, flags=re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not a size such as 512MiB, 2GiB or 4G")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


def show_bytes(size: int) -> str:
    """'16MiB' of 16777216; other numbers as they are."""
    for unit in ("Gi", "Mi", "Ki"):
        if size % _UNITS[unit.upper()] == 0:
            return f"{size // _UNITS[unit.upper()]}{unit}B"
    return str(size)


def parse_mesh(text: str) -> int | tuple[int, int, int]:
    """Reads '8' or 'replica=1,kv=4,group=2' (missing axes are 1).

    Raises:
        ValueError: anything else.
    """
    if text.isdecimal() and int(text) > 0:
        return int(text)
    axes = {"replica": 1, "kv": 1, "group": 1}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name.strip() not in axes or not size.strip().isdecimal() or int(size) < 1:
            raise ValueError(f"{text!r} is neither a number of devices nor axes such as kv=4,group=2")
        axes[name.strip()] = int(size)
    return axes["replica"], axes["kv"], axes["group"]


SIZE: dict[str, Any] = {"parse": parse_bytes, "show": show_bytes, "metavar": "SIZE"}
"""How an option in bytes is declared."""
