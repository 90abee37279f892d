"""What a program may cost, and which of a row's figures are beyond that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.aot.matrix import programs

_TEMPORARY_MB = {"decode": 100.0, "prefill": 300.0}
_COPY_MB = 64.0
"""Of one copy that every step makes: parameters and caches are larger, activations of a decoding step smaller."""
_BYTES_RATIO = 1.1
_EXCEPTIONS: dict[str, dict[str, float]] = {
    "deepseek-v3.1": {"bytes_ratio": 1.25, "prefill_temporary_mb": 450.0},
}
"""By model: figures that are known to be worse, as bounds against getting worse still."""
TARGETS: Mapping[tuple[str, str], float] = {
    **dict.fromkeys((("llama-3.1-8b", "v5e"), ("llama-3.1-8b", "v6e")), 1.25),
    ("llama-3.1-70b", "v5e"): 1.5,
    **{("qwen3-8b", chip): 1.25 for chip in ("v5e", "v6e")},
    **{(model, "v6e"): 1.6 for model in ("qwen3-30b-a3b", "gpt-oss-20b", "glm-4.5-air", "minimax-m2")},
    ("deepseek-v3.1", "v5p"): 2.0,
}
"""Wished ratio of estimated time to the floor, while decoding, by model and chip."""


def beyond(row: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on what a row has too much of; nothing = all is well."""
    if "error" in row:
        yield row["error"]
        return
    one = next(program for program in programs() if program.name == row["program"])
    known = _EXCEPTIONS.get(one.model, {})
    if not row["in_place"]:
        yield "the cache is copied, not updated in place"
    if row["temporary_mb"] > (most := known.get(f"{one.step}_temporary_mb", _TEMPORARY_MB[one.step])):
        yield f"{row['temporary_mb']} MB of temporaries, more than {most}"
    largest = max((copy["mb"] for copy in row["copies"]), default=0.0)
    if one.step == "decode" and largest > (most := known.get("copy_mb", _COPY_MB)):
        yield f"a copy of {largest} MB in every step, more than {most}"
    ratio = row["steps"][0]["bytes_ratio"]
    if one.step == "decode" and ratio > (most := known.get("bytes_ratio", _BYTES_RATIO)):
        yield f"{ratio} times the bytes that are needed, more than {most}"
