"""Packing: what each part of the buffer holds, and the rings of page tables."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from jaxserve.engine.batch import Layout, build, choose_layout
from jaxserve.engine.types import Plan, PlannedRow, Request, Sequence
from jaxserve.sampling.params import SamplingParams


def row(start: int, tokens: tuple[int, ...], *pages: tuple[int, list[int]], samples: bool = False) -> PlannedRow:
    sequence = Sequence(Request("r", (1,), SamplingParams(), 4), 0, 0)
    tables = tuple((first, array("i", ids)) for first, ids in pages)
    return PlannedRow(sequence, start, tokens, tables, samples, fresh=False, position=0)


def test_rows_are_packed_one_after_the_other() -> None:
    plan = Plan((row(5, (7, 8, 9), (0, [3, 4])), row(0, (-1,), (0, [5]), samples=True)))
    views = Layout(8, 3, (4,)).split(build(plan, Layout(8, 3, (4,)), lambda target, _, token: target.fill(token)))
    assert views.tokens_T.tolist() == [7, 8, 9, -1, 0, 0, 0, 0]
    assert views.cu_q_lens.tolist() == [0, 3, 4, 4]
    assert views.kv_lens_R.tolist() == [8, 1, 0]
    assert views.page_tables[0].tolist() == [[3, 4, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0]]
    assert (views.rows_RC[[0, 2]] == 0).all()
    assert (views.rows_RC[1] == 3).all()


@pytest.mark.parametrize("first", range(9))
@pytest.mark.parametrize("count", range(5))
def test_blocks_lie_in_rings(first: int, count: int) -> None:
    ids = list(range(11, 11 + count))
    layout = Layout(4, 2, (7, 4, 12))
    plan = Plan((row(0, (1,), (0, [1]), (0, [2]), (0, [3])), row(0, (1,), (0, [9]), (first, ids), (2, [8]))))
    full, ring, other = layout.split(build(plan, layout, lambda *_: None)).page_tables
    assert ring[0].tolist() == [2, 0, 0, 0]
    expected = np.zeros(4, np.int32)
    for block, page in enumerate(ids, first):
        expected[block % 4] = page
    assert ring[1].tolist() == expected.tolist()
    assert full.tolist() == [[1] + [0] * 6, [9] + [0] * 6]
    assert other.tolist() == [[3] + [0] * 11, [0, 0, 8] + [0] * 9]


def test_the_smallest_bucket_that_holds_the_plan() -> None:
    buckets = (Layout(2, 1, (4,)), Layout(4, 2, (4,)), Layout(8, 2, (4,)))
    one, two = row(0, (1, 2), (0, [1])), row(0, (1,), (0, [1]))
    assert choose_layout(Plan((one,)), buckets) is buckets[0]
    assert choose_layout(Plan((two, two)), buckets) is buckets[1]
    assert choose_layout(Plan((one, one)), buckets) is buckets[1]
    with pytest.raises(ValueError, match="exceeds every bucket"):
        choose_layout(Plan((two, two, two)), buckets)
