"""A quantised model through the whole engine."""

from __future__ import annotations

from jaxserve import LLM, SamplingParams

PROMPTS = ["Once upon a time", "Tom had a red ball. He", "It was"]
GREEDY = SamplingParams(temperature=0)


def test_int8_generates_reproducibly():
    """The same tokens alone and together, in less memory; and the start-up summary says what is held."""
    options = {"max_num_seqs": 2, "max_model_len": 128, "token_buckets": (4, 32), "kv_memory": 16 << 20}
    with LLM(quantize="int8", **options) as llm:
        together = [done.token_ids for done in llm.generate(PROMPTS, GREEDY, max_tokens=20, ignore_eos=True)]
        alone = [llm.generate(p, GREEDY, max_tokens=20, ignore_eos=True)[0].token_ids for p in PROMPTS]
        remarks = llm._started.remarks
    assert together == alone
    assert all(len(ids) == 20 for ids in together)
    assert "weights are int8, a scale per row; all parameters take 2 MB" in remarks
