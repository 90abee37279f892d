"""Pages of single sequences: shared beginnings, and what a fork makes known."""

from __future__ import annotations

from jaxserve.engine.paging import Paging
from jaxserve.engine.requests import Request
from jaxserve.engine.sequence import Sequence
from jaxserve.sampling.params import SamplingParams

TOKENS = tuple(range(40))


def sequence(length: int) -> Sequence:
    return Sequence(Request("r", TOKENS[:length], SamplingParams(), 4), 0, 0)


def holding(paging: Paging, length: int) -> Sequence:
    made = sequence(length)
    assert paging.start(made, paging.nothing(), length, 0)
    return made


def register(paging: Paging, one: Sequence, blocks: int) -> None:
    paging.register(one, 4 * blocks)


def test_a_fork_knows_no_more_than_the_donor_and_no_more_than_it_shares() -> None:
    paging = Paging(60, 4, (None, 6), 40, 16)
    donor = holding(paging, 38)
    paths = []
    for known in (1, 9):
        register(paging, donor, known)
        prefix = paging.shared(donor, 28)
        assert prefix is not None
        assert prefix.known == min(known, 7)
        path, block = 0, prefix.block
        while block is not None:
            path, block = path + 1, block.parent
        paths.append(path)
    assert paths == [1, 7], "the block it knows last is as deep as it says"
    paging.check([donor])


def test_a_fork_makes_blocks_known_whose_window_it_never_held() -> None:
    paging = Paging(60, 4, (None, 6), 40, 16)
    donor = holding(paging, 38)
    prefix = paging.shared(donor, 28)
    assert prefix is not None
    fork = sequence(38)
    assert paging.start(fork, prefix, 38, 0)
    paging.vacate(donor)
    register(paging, fork, 7)
    paging.check([fork])
    assert paging.lookup("", TOKENS, 28, 4).blocks == 7
    assert paging.lookup("", TOKENS, 24, 4).blocks == 0, "positions 19 to 23 are not there in the second group"
    register(paging, fork, 9)
    assert paging.lookup("", TOKENS, 36, 4).blocks == 9
    paging.give_up(fork, 38)
    assert fork.pages.runs[1].first == 8
    paging.vacate(fork)
    paging.check([])
    assert paging.available == 59


def test_equal_blocks_computed_by_two_become_one_in_every_group() -> None:
    paging = Paging(60, 4, (None, 6), 40, 16)
    first, second = holding(paging, 16), holding(paging, 16)
    register(paging, first, 4)
    before = paging.available
    register(paging, second, 4)
    assert first.pages.runs == second.pages.runs
    assert paging.available == before + 8
    paging.check([first, second])


def test_what_leaves_first_is_the_end_of_all_groups() -> None:
    paging = Paging(1 + 10 + 8, 4, (None, 6), 40, 16)
    one = holding(paging, 16)
    register(paging, one, 4)
    paging.vacate(one)
    evictor = sequence(25)
    assert paging.start(evictor, paging.nothing(), 24, 0)
    assert paging.idle == 5
    assert paging.lookup("", TOKENS, 16, 4).blocks == 2, "of 4 blocks the last lost both pages, the third one"
