"""The server over time: churn leaves nothing behind, and no answer depends on what else runs (`make soak`)."""

from __future__ import annotations

import pytest

from benchmarks.soak.__main__ import wrongs
from benchmarks.soak.churn import STAGES, churn
from benchmarks.soak.reproducing import compare, flags, measured
from benchmarks.soak.server import Watched, serving


@pytest.fixture(scope="module")
def crowded(serve) -> Watched:
    """So few pages that sequences lose theirs; bfloat16, which shows more than float32 (roundings left out by XLA)."""
    server: Watched = serve(None, *flags("bfloat16"))
    return server


def check_same(found, preemptions):
    assert found.differing == ()
    assert found.compilations == 0
    assert found.preemptions >= preemptions, found
    assert min(found.cached_prompt_tokens, found.accepted_drafts) > 0, found


def check_flat(found, server, *, threads=8, megabytes):
    assert list(wrongs(found, server.engine("total_pages"))) == []
    assert set(found.requests) == set(STAGES)
    assert found.after.threads - found.middle.threads <= threads, found
    assert found.grown_mb < megabytes, found


@pytest.mark.timeout(600)
def test_requests_of_all_kinds_have_the_same_answers_alone_and_under_load(crowded):
    check_same(compare(crowded, "bfloat16", 40), preemptions=1)


@pytest.mark.timeout(600)
def test_clients_that_leave_at_every_stage_leave_nothing_behind(crowded):
    check_flat(churn(crowded, 8), crowded, megabytes=12)


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ten_thousand_requests_have_the_same_answers_alone_and_under_load(dtype):
    check_same(measured(dtype, 10_000), preemptions=1000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_half_an_hour_of_churn_leaves_nothing_behind():
    with serving(*flags("bfloat16")) as server:
        check_flat(churn(server, 1800), server, megabytes=12)
