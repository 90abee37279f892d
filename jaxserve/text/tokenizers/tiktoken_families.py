"""What a tiktoken file leaves out: the pattern that cuts text into words, and the special tokens after the vocabulary.

Patterns are data of the trained vocabularies, each as its publisher documents it: OpenAI's in the package `tiktoken`,
Llama 3's in meta-llama/llama-models, Qwen's in the Qwen repository's tokenization note, Kimi K2's with its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxserve.text.tokenizers.model_files import ModelFiles

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def _words_by_case(exclude: str = "") -> str:
    """o200k's words: capitals then small letters, either part may be missing; `exclude` subtracts a script."""
    upper, lower = f"[{_UPPER}{exclude}]", f"[{_LOWER}{exclude}]"
    lead = r"[^\r\n\p{L}\p{N}]?"
    return f"{lead}{upper}*{lower}+{_CONTRACTIONS}?|{lead}{upper}+{lower}*{_CONTRACTIONS}?"


_CL100K = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _TAIL


@dataclass(frozen=True)
class TiktokenFamily:
    """One publisher's conventions."""

    name: str
    pattern: str
    """Regular expression (fancy-regex syntax) whose matches are encoded one by one."""
    specials: Callable[[int], dict[int, str]]
    """Special tokens by id, for a vocabulary of so many ranks."""
    ranks: tuple[int, ...] = ()
    """Sizes of the published vocabularies."""
    model_types: tuple[str, ...] = ()
    tokenizer_classes: tuple[str, ...] = ()
    stems: tuple[str, ...] = ()
    """File names without suffix."""
    bos: str | None = None
    eos: tuple[str, ...] = ()
    adds_bos: bool = False
    """Whether plain text gets BOS when no file says so."""
    nfc: bool = False
    """Whether the publisher's tokenizer class (not the bare vocabulary) brings text to Unicode's normal form C."""


def _llama3_specials(ranks: int) -> dict[int, str]:
    named = {
        0: "<|begin_of_text|>",
        1: "<|end_of_text|>",
        2: "<|reserved_special_token_0|>",
        3: "<|reserved_special_token_1|>",
        4: "<|finetune_right_pad_id|>",
        5: "<|reserved_special_token_2|>",
        6: "<|start_header_id|>",
        7: "<|end_header_id|>",
        8: "<|eom_id|>",
        9: "<|eot_id|>",
        10: "<|python_tag|>",
    }
    reserved = {index: f"<|reserved_special_token_{index - 8}|>" for index in range(11, 256)}
    return {ranks + index: text for index, text in (named | reserved).items()}


def _qwen_specials(ranks: int) -> dict[int, str]:
    texts = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
    return {ranks + index: text for index, text in enumerate(texts)}


def _harmony_specials(ranks: int) -> dict[int, str]:
    named = {
        0: "<|startoftext|>",
        1: "<|endoftext|>",
        4: "<|return|>",
        5: "<|constrain|>",
        7: "<|channel|>",
        8: "<|start|>",
        9: "<|end|>",
        10: "<|message|>",
        14: "<|call|>",
        20: "<|endofprompt|>",
    }
    return {ranks + i: named.get(i, f"<|reserved_{ranks + i}|>") for i in range(201_088 - 199_998)}


def _kimi_specials(ranks: int) -> dict[int, str]:
    named = {0: "[BOS]", 1: "[EOS]"}
    return {ranks + i: named.get(i, f"<|reserved_token_{ranks + i}|>") for i in range(256)}


def _cl100k_specials(ranks: int) -> dict[int, str]:
    named = {
        1: "<|endoftext|>",
        2: "<|fim_prefix|>",
        3: "<|fim_middle|>",
        4: "<|fim_suffix|>",
        20: "<|endofprompt|>",
    }
    return {ranks + index: text for index, text in named.items()}


def _gpt2_specials(ranks: int) -> dict[int, str]:
    return {50_256 if ranks in (50_256, 50_280) else ranks: "<|endoftext|>"}


FAMILIES = (
    TiktokenFamily(
        name="llama3",
        pattern=_CL100K,
        specials=_llama3_specials,
        ranks=(128_000,),
        model_types=("llama", "mllama"),
        bos="<|begin_of_text|>",
        eos=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        adds_bos=True,
    ),
    TiktokenFamily(
        name="qwen",
        pattern=_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _TAIL,
        specials=_qwen_specials,
        ranks=(151_643,),
        model_types=("qwen", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
        tokenizer_classes=("QWenTokenizer",),
        stems=("qwen",),
        eos=("<|endoftext|>", "<|im_end|>"),
        nfc=True,
    ),
    TiktokenFamily(
        name="harmony",
        pattern=_words_by_case() + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _TAIL,
        specials=_harmony_specials,
        ranks=(199_998,),
        model_types=("gpt_oss",),
        stems=("o200k_base", "o200k_harmony"),
        bos="<|startoftext|>",
        eos=("<|return|>", "<|call|>", "<|endoftext|>"),
    ),
    TiktokenFamily(
        name="kimi",
        pattern=r"[\p{Han}]+|" + _words_by_case(r"&&[^\p{Han}]") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _TAIL,
        specials=_kimi_specials,
        ranks=(163_584,),
        model_types=("kimi_k2", "kimi_k25", "kimi_linear"),
        tokenizer_classes=("TikTokenTokenizer",),
        bos="[BOS]",
        eos=("[EOS]",),
    ),
    TiktokenFamily(
        name="cl100k",
        pattern=_CL100K,
        specials=_cl100k_specials,
        ranks=(100_256,),
        stems=("cl100k_base",),
        eos=("<|endoftext|>",),
    ),
    TiktokenFamily(
        name="gpt2",
        pattern=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        specials=_gpt2_specials,
        ranks=(50_256, 50_280),
        model_types=("gpt2",),
        stems=("r50k_base", "p50k_base", "gpt2"),
        eos=("<|endoftext|>",),
    ),
)


def find_family(files: ModelFiles, stem: str, ranks: int) -> TiktokenFamily | None:
    """The family of a vocabulary: by tokenizer_class, else its size, else model_type, else the file's name."""
    tests: tuple[Callable[[TiktokenFamily], bool], ...] = (
        lambda family: files.tokenizer_class in family.tokenizer_classes,
        lambda family: ranks in family.ranks,
        lambda family: files.model_type in family.model_types,
        lambda family: stem in family.stems,
    )
    return next((family for test in tests for family in FAMILIES if test(family)), None)
