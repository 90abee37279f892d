"""The walk over a compiled program, on one written by hand: loops, slices, memories, copies, kernels, exchanges."""

from __future__ import annotations

import pytest

from jaxserve.ahead.hlo import parse
from jaxserve.ahead.traffic import measure

PROGRAM = """HloModule jit_f, is_scheduled=true

%body (state: (s32[], bf16[8,64], bf16[4,64,64])) -> (s32[], bf16[8,64], bf16[4,64,64]) {
  %state = (s32[], bf16[8,64]{1,0:T(8,128)(2,1)}, bf16[4,64,64]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%state), index=1
  %w = bf16[4,64,64]{2,1,0:T(8,128)(2,1)} get-tuple-element(%state), index=2
  %product = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} fusion(%x, %w, %i), kind=kOutput, calls=%sliced, \
metadata={op_name="jit(f)/while/body/dot"}, backend_config={"estimated_cycles":"100"}
  %sum = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} all-reduce(%product), to_apply=%add, metadata={op_name="jit(f)/while/psum"}
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %out = (s32[], bf16[8,64]{1,0:T(8,128)(2,1)}, bf16[4,64,64]{2,1,0}) tuple(%next, %sum, %w)
}

%sliced (p0: bf16[8,64], p1: bf16[4,64,64], p2: s32[]) -> bf16[8,64] {
  %p0 = bf16[8,64]{1,0} parameter(0)
  %p1 = bf16[4,64,64]{2,1,0} parameter(1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  %layer = bf16[1,64,64]{2,1,0} dynamic-slice(%p1, %p2, %zero, %zero), dynamic_slice_sizes={1,64,64}
  %flat = bf16[64,64]{1,0} bitcast(%layer)
  ROOT %dot = bf16[8,64]{1,0} convolution(%p0, %flat), dim_labels=bf_oi->bf
}

%condition (state: (s32[], bf16[8,64], bf16[4,64,64])) -> pred[] {
  %state.1 = (s32[], bf16[8,64], bf16[4,64,64]) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(4)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (x: bf16[8,64], w: bf16[4,64,64]) -> bf16[8,64] {
  %x.1 = bf16[8,64]{1,0:T(8,128)(2,1)} parameter(0)
  %w.1 = bf16[4,64,64]{2,1,0:T(8,128)(2,1)} parameter(1)
  %start = s32[] constant(0)
  %turned = bf16[4,64,64]{1,2,0:T(8,128)(2,1)} copy(%w.1)
  %first = (s32[], bf16[8,64]{1,0}, bf16[4,64,64]{2,1,0}) tuple(%start, %x.1, %turned)
  %loop = (s32[], bf16[8,64]{1,0}, bf16[4,64,64]{2,1,0}) while(%first), condition=%condition, body=%body
  %y = bf16[8,64]{1,0} get-tuple-element(%loop), index=1
  ROOT %paged_attention.1 = bf16[8,64]{1,0} custom-call(%y), custom_call_target="tpu_custom_call", \
metadata={op_name="jit(f)/paged_attention/pallas_call"}
}
""".replace("\\\n", "")
LAYER, ALL = 64 * 64 * 2, 4 * 64 * 64 * 2


@pytest.fixture(scope="module")
def traffic():
    return measure(parse(PROGRAM))


def test_a_loop_counts_as_often_as_it_turns_and_a_slice_as_much_as_it_is(traffic):
    product = next(one for one in traffic.operations if one.source.endswith("dot"))
    assert (product.times, product.cycles) == (4, 400)
    assert product.hbm_bytes == 4 * (LAYER + 4), "activations live in VMEM; of the stack one layer is read"
    assert traffic.unknown_loops == ()


def test_memory_that_is_only_tiled_anew_is_not_read():
    """int8 weights get the tiles of the inputs: XLA says so by a fusion that is its own operand."""
    tiled = (
        "%tiled = bf16[4,64,64]{2,1,0} fusion(%p1), kind=kLoop, output_to_operand_aliasing={{}: (0, {})}, calls=%same"
    )
    text = PROGRAM.replace(
        "  %layer = bf16[1,64,64]{2,1,0} dynamic-slice(%p1,",
        f"  {tiled}\n  %layer = bf16[1,64,64]{{2,1,0}} dynamic-slice(%tiled,",
    )
    lines = ("%p = bf16[4,64,64] parameter(0)", "ROOT %c = bf16[4,64,64] copy(%p)")
    same = "%same (p: bf16[4,64,64]) -> bf16[4,64,64] {\n  " + "\n  ".join(lines) + "\n}\n\n"
    text = text.replace("%condition (state", same + "%condition (state")
    product = next(one for one in measure(parse(text)).operations if one.source.endswith("dot"))
    assert product.hbm_bytes == 4 * (LAYER + 4)


def test_copies_exchanges_and_kernels_are_found(traffic):
    copies = traffic.copies(LAYER + 1)
    assert [(one.opcode, one.hbm_bytes) for one in copies] == [("copy", 2 * ALL)]
    assert [(one.opcode, one.times) for one in traffic.collectives] == [("all-reduce", 4)]
    assert traffic.kernel_calls() == {"paged_attention": 1}
    assert traffic.hbm_bytes == pytest.approx(2 * ALL + 4 * (LAYER + 4), rel=0.01)


def test_loops_without_an_end_are_named_or_told():
    text = PROGRAM.replace("%limit = s32[] constant(4)", "%limit = s32[] get-tuple-element(%state.1), index=0")
    text = text.replace("body=%body", 'body=%body, metadata={op_name="jit(f)/experts/while"}')
    assert measure(parse(text)).unknown_loops == ("jit(f)/experts/while",)
    told = measure(parse(text), {"experts": 7.0})
    assert max(one.times for one in told.operations) == 7
    assert told.unknown_loops == ()


def test_other_texts_are_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        parse("nothing")
