"""Where drafts come from, how many are proposed, and what their fate teaches; a model that counts, with predictions."""

from __future__ import annotations

import pytest
from engine_configs import engine_config
from test_engine import Counting, collect, make, request, tokens

from jaxserve.engine.corpus import Corpus, OwnCorpus
from jaxserve.engine.drafting import Room
from jaxserve.engine.plan import Advance
from jaxserve.engine.requests import DraftCounts
from jaxserve.engine.sequence import Sequence
from jaxserve.engine.speculation import Speculation, Trust

TEXT = tuple(range(10, 40))


def followed(corpus, output):
    """The corpus behind an output that came token by token."""
    for count in range(1, len(output) + 1):
        corpus.take(output[:count], 1)
    return corpus


@pytest.mark.parametrize(
    ("output", "guess"),
    [
        ((), TEXT[:3]),
        (TEXT[:5], TEXT[5:8]),
        ((1, 2), ()),
        ((*TEXT[:5], 1, 2), ()),
        ((*TEXT[:5], 1, 2, TEXT[7]), ()),
        ((*TEXT[:5], 1, 2, *TEXT[7:9]), TEXT[9:12]),
        ((*TEXT[:5], *TEXT[20:22]), TEXT[22:25]),
        ((*TEXT[:20], 1, *TEXT[3:5]), TEXT[5:8]),
        (TEXT, ()),
    ],
    ids=["begin", "in step", "elsewhere", "parted", "one token", "two tokens", "left out", "gone back", "over"],
)
def test_a_prediction_is_followed_and_found_again(output, guess):
    assert followed(Corpus(TEXT, 2), output).guess(0, 3) == guess


def test_of_equal_places_the_next_one_is_taken_and_a_longer_match_before_it():
    text = (1, 2, 3, 50, 1, 2, 4, 51, 1, 2, 5, 52)
    assert followed(Corpus(text, 2), (1, 2, 3, 50, 9, 1, 2)).guess(0, 2) == (4, 51)
    assert followed(Corpus(text, 2), (1, 2, 3, 9, 51, 1, 2)).guess(0, 2) == (5, 52)


def test_what_is_in_flight_is_taken_to_be_right():
    assert followed(Corpus(TEXT, 2), TEXT[:4]).guess(2, 3) == TEXT[6:9]


@pytest.mark.parametrize(
    ("prompt", "output", "guess"),
    [
        ((1, 2, 3, 4, 5, 9), (1, 2, 3), (4, 5, 9, 1)),
        ((1, 2, 3, 7, 1, 2, 3, 8, 9), (1, 2, 3), (8, 9, 1, 2)),
        ((1, 2, 3, 4), (9, 8, 7), ()),
        ((5,), (7, 8, 6, 7, 8, 6), (7, 8, 6, 7)),
    ],
    ids=["prompt", "latest", "new", "repetition"],
)
def test_an_output_is_looked_up_in_its_own_text(prompt, output, guess):
    assert followed(OwnCorpus(prompt, 3), output).guess(0, 4) == guess


def test_own_text_behind_what_is_in_flight():
    """From `start` tokens on, and on behind the end of the text, where what lies between is taken to repeat."""
    corpus = followed(OwnCorpus((1, 2, 3, 4, 5, 9), 3), (1, 2, 3))
    assert corpus.guess(2, 3) == (9, 1, 2)
    assert corpus.guess(5, 4) == (3, 4, 5, 9)
    assert followed(OwnCorpus((5, 6, 7, 5, 6, 7), 3), ()).guess(1, 2) == ()
    assert followed(OwnCorpus((5, 6, 7, 5), 3), (6, 7)).guess(1, 4) == (6, 7, 5, 6)


def test_what_a_grammar_had_written_before_is_written_alike():
    """A model need not write forced text as the tokenizer would: the output's own spelling is what it repeats."""
    speculation = Speculation(lookup=False, forced=lambda sequence: ())
    sequence = Sequence(request("a", constraint=lambda: None), 0, 0)
    sequence.output += [50, 51, 52, 53, 54, 9, 50, 51, 52]
    sequence.sampled = len(sequence.output) + 1
    proposal = speculation.propose(sequence, 15)
    assert proposal is not None
    assert proposal.origin == "own text"
    assert proposal.tokens[:2] == (53, 54)
    free = Sequence(request("b"), 0, 0)
    free.output, free.sampled = list(sequence.output), sequence.sampled
    assert speculation.propose(free, 15) is None


def test_a_source_that_is_wrong_rests_longer_each_time_and_one_that_is_right_is_asked_for_more():
    trust, lengths, pauses = Trust(), [], []
    for _ in range(4):
        lengths.append(int(trust.length))
        trust.learn(lengths[-1], lengths[-1])
    assert lengths == sorted(lengths)
    assert lengths[-1] >= 8
    wrong = Trust()
    for _ in range(12):
        wrong.learn(3, 0)
        pauses.append(wrong.pause)
    resting = [pause for pause in pauses if pause]
    assert resting == sorted(resting)
    assert resting[-1] >= 64


def test_drafts_end_before_a_stop_token_and_keep_to_what_is_asked():
    speculation = Speculation(lookup=False, forced=lambda sequence: ())
    sequence = Sequence(request(prediction=(1, 2, 3, 999, 4), stop_token_ids=(999,)), 0, 0, sampled=1)
    assert speculation.propose(sequence, 15).tokens == (1, 2, 3)
    assert speculation.propose(sequence, 2).tokens == (1, 2)
    sequence.sampled = 4
    assert speculation.propose(sequence, 15) is None


def test_what_a_grammar_forces_comes_first_where_it_is_more():
    forced = [5, 6, 7, 8]
    speculation = Speculation(lookup=False, forced=lambda sequence: tuple(forced))
    sequence = Sequence(request(prediction=(1, 2, 3), constraint=lambda: None), 0, 0, sampled=1)
    assert speculation.propose(sequence, 15).origin == "constraint"
    del forced[:]
    assert speculation.propose(sequence, 15).origin == "prediction"


def test_a_request_that_nothing_is_known_of_has_no_drafts():
    speculation = Speculation(lookup=False, forced=lambda sequence: ())
    sequence = Sequence(request(), 0, 0, sampled=1)
    assert speculation.propose(sequence, 15) is None
    speculation.learn(Advance(sequence))
    assert speculation.drafted == 0


@pytest.mark.parametrize(
    ("tokens", "samples", "wanted", "room"),
    [(1, 1, 0, 3), (1, 1, 3, 3), (1, 1, 4, 7), (1, 1, 15, 15), (4, 4, 0, 0), (5, 5, 0, 3), (9, 9, 0, 7), (60, 3, 0, 4)],
)
def test_drafts_fill_a_step_and_enlarge_it_only_as_wanted(tokens, samples, wanted, room):
    buckets = ((4, 4), (8, 16), (16, 16), (64, 16))
    assert Room(buckets).beside(tokens, samples, wanted) == room


def test_two_sizes_of_samples_and_no_more():
    config = engine_config(max_num_seqs=4, max_num_batched_tokens=32)
    assert [config.sample_bucket(size) for size in (32,)] == [16]
    many = engine_config(max_num_seqs=20, max_num_batched_tokens=64)
    assert many.sample_bucket(64) == 20


class Verifying(Counting):
    """Counts on, and keeps of a row with drafts what a device keeps."""

    def draw(self, ticket, indices, masks):
        results = []
        for index in indices:
            row, slot = ticket["plan"].rows[index], ticket["slots"][index]
            (result,) = super().draw(ticket, [index], masks)
            first = row.tokens[row.count - row.samples] if row.samples else 0
            token = (first if first >= 0 else ticket["before"][index]) + 1
            sampled = []
            for draft in (*row.drafts, None):
                sampled.append(type(result.sampled[0])(token))
                self.last[slot] = token
                if token != draft:
                    break
                token += 1
            results.append(type(result)(tuple(sampled)) if row.samples else result)
        return results


def test_a_right_prediction_takes_few_steps_and_is_counted():
    runner = Verifying()
    engine = make(runner, max_num_batched_tokens=32)
    try:
        deltas = collect(engine, request(max_tokens=60, prediction=tuple(range(1, 61))))
        assert tokens(deltas) == list(range(1, 61))
        counts = deltas[-1].drafts
        assert counts.predicted == (counts.drafted, counts.drafted)
        assert runner.steps <= 60 - counts.drafted + 2
        assert counts.drafted >= 50
        assert (engine.stats().drafted_tokens, engine.stats().accepted_drafts) == (counts.drafted,) * 2
        assert all(delta.drafts is None for delta in deltas[:-1])
    finally:
        engine.close()


def test_a_wrong_prediction_is_given_up():
    runner = Verifying()
    engine = make(runner)
    try:
        deltas = collect(engine, request(max_tokens=100, prediction=(1, 2, 7, 7, 7, *range(3, 200, 2))))
        assert tokens(deltas) == list(range(1, 101))
        assert deltas[-1].drafts.drafted - deltas[-1].drafts.predicted[0] < 15
    finally:
        engine.close()


def test_counts_of_choices_add_up():
    a, b = DraftCounts(((3, 4), (1, 3)), (4, 7)), DraftCounts(((1, 1),), (0, 0))
    assert a + b == DraftCounts(((4, 5), (1, 3)), (4, 7))
    assert (a + b).drafted == 8
