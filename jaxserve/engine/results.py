"""From what a step left on the host to the results of a plan's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jaxserve.engine.batch import Int32Array
from jaxserve.engine.encode import scored_positions
from jaxserve.engine.plan import Plan, PlannedRow, RowResult, SampledToken
from jaxserve.engine.requests import Request, TokenLogprob
from jaxserve.engine.sequence import Sequence
from jaxserve.sampling.logprobs import unpack_scores
from jaxserve.sampling.packing import MAX_TOP_LOGPROBS, unpack_out, unpack_tokens


@dataclass(frozen=True, eq=False)
class StepOutput:
    """A step's results as they come from the device."""

    out: Int32Array
    """[N, OUT_COLUMNS], see `sampling.packing`."""
    scores: Int32Array | None
    """Packed log-probabilities of prompt tokens, a line for each of T positions."""
    hidden: npt.NDArray[np.float32] | None
    """[N, D] activations of the samples."""
    routing: npt.NDArray[np.integer] | None
    """[moe layers, T, experts per token], uint8 or int16."""


def row_results(output: StepOutput, plan: Plan, note_mu: Callable[[Sequence, float], None]) -> list[RowResult]:
    """One result for each row of a plan.

    Args:
        output: what its step gave.
        plan: the plan; all plans before it have been committed.
        note_mu: told mirostat's state of the sequences that use it.
    """
    results, token, sample = [], 0, 0
    tokens, failed = unpack_tokens(output.out)
    for row in plan.rows:
        if row.samples == 1 and not row.void and output.scores is None and _tells_only_tokens(row.sequence.request):
            results.append(RowResult((SampledToken(tokens[sample], failed=failed[sample]),)))
            token, sample = token + row.count, sample + 1
            continue
        first = token + row.count - row.samples  # of the row's tokens, the last ones are sampled from
        sampled = () if row.void else tuple(_kept(output, sample, first, row, note_mu))
        scores = () if output.scores is None else _scores(output.scores, token, row)
        results.append(RowResult(sampled, scores, _prompt_routing(output.routing, token, row)))
        token, sample = token + row.count, sample + row.samples
    return results


def _tells_only_tokens(request: Request) -> bool:
    """Whether nothing else is read of a request's samples: of most. They take a tenth of the time of the others."""
    return (
        request.logprobs is None
        and request.sampling.mirostat_target is None
        and not (request.want_activations or request.want_routing)
    )


def _kept(
    output: StepOutput, sample: int, token: int, row: PlannedRow, note_mu: Callable[[Sequence, float], None]
) -> Iterator[SampledToken]:
    """A row's samples from `sample` on, up to the first that drew something else than its draft; `token` is the first's
    token of the step."""
    drafts = (*row.drafts, None)
    for index in range(row.samples):
        sampled = _sampled(output, sample + index, token + index, row, note_mu)
        yield sampled
        if sampled.failed or sampled.token != drafts[index]:
            return


def _sampled(
    output: StepOutput, index: int, token: int, row: PlannedRow, note_mu: Callable[[Sequence, float], None]
) -> SampledToken:
    """Sample `index` of the step, which was drawn from the logits of its token `token`."""
    request = row.sequence.request
    line = unpack_out(output.out, index, request.logprobs or 0)
    if request.sampling.mirostat_target is not None:
        note_mu(row.sequence, line.mu)
    logprob = None
    if request.logprobs is not None:
        logprob = TokenLogprob(line.token, line.logprob, line.sampling_logprob, line.top)
    return SampledToken(
        line.token,
        logprob,
        failed=line.failed,
        activation=output.hidden[index].tobytes() if output.hidden is not None and request.want_activations else None,
        routing=_routing(output.routing, token) if request.want_routing else None,
    )


def _scores(scores: Int32Array, token: int, row: PlannedRow) -> tuple[tuple[int, TokenLogprob], ...]:
    request = row.sequence.request
    entries = []
    for position in scored_positions(row):
        logprob, top = unpack_scores(scores, token + position - 1 - row.start, request.logprobs or 0)
        entries.append((position, TokenLogprob(request.prompt[position], logprob, None, top[:MAX_TOP_LOGPROBS])))
    return tuple(entries)


def _prompt_routing(
    routing: npt.NDArray[np.integer] | None, token: int, row: PlannedRow
) -> tuple[tuple[int, bytes], ...]:
    if routing is None or not row.sequence.request.want_routing:
        return ()
    return tuple(
        (position, _little_endian(routing[:, token + position - 1 - row.start])) for position in scored_positions(row)
    )


def _routing(routing: npt.NDArray[np.integer] | None, token: int) -> bytes | None:
    return None if routing is None else _little_endian(routing[:, token])


def _little_endian(numbers: npt.NDArray[np.integer]) -> bytes:
    return numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()
