"""Without a server: the engine in this process, as one would use it in a notebook."""

from __future__ import annotations

from jaxserve import LLM, SamplingParams


def main() -> None:
    with LLM(max_num_seqs=4) as llm:  # or LLM("/path/to/model")
        seeded = SamplingParams(temperature=0.8, top_p=0.95, seed=1)
        for completion in llm.generate(["Once upon a time", "One day, a fox"], seeded, max_tokens=60):
            print(completion.text, "\n---")

        for text in llm.stream("Tom and Lily", SamplingParams(temperature=0), max_tokens=40):
            print(text, end="", flush=True)
        print()

        (scored,) = llm.generate("The cat", SamplingParams(temperature=0), max_tokens=5, logprobs=3)
        for entry in scored.logprobs:
            alternatives = ", ".join(
                f"{llm.tokenizer.token_text(token)!r} {logprob:.2f}" for token, logprob in entry.top
            )
            print(f"{llm.tokenizer.token_text(entry.token)!r:>12}  {alternatives}")


if __name__ == "__main__":
    main()
