"""The command line: `jaxserve serve`, `generate` and `convert`. Wires the rooms together and owns the process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NoReturn, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from jaxserve.errors import JaxserveError, ModelLoadError

if TYPE_CHECKING:
    from jaxserve.engine.sizing import EngineOptions

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
_console = Console(stderr=True)

_LOAD_FAILED = 2
"""Exit code when the model can't be served."""
_ENGINE_DIED = 3
"""Exit code when the engine died while serving."""
_GENERATE_BUCKETS = (4, 64, 512)
"""Token buckets for one prompt: few, since they are compiled while somebody waits."""

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        help="Directory in hub layout, or one that `convert` wrote (also gs://...). Default: the bundled story model."
    ),
]
DtypeOption = Annotated[
    Literal["float32", "bfloat16"] | None,
    typer.Option(help="Weights and KV pages. Default: float32 on CPU, else bfloat16."),
]
SeqsOption = Annotated[int | None, typer.Option(min=1, help="Sequences that run at once.")]
LengthOption = Annotated[int | None, typer.Option(min=2, help="Context length. Default: the model's, or what fits.")]
MemoryOption = Annotated[
    str | None, typer.Option(help="Memory for KV pages per device, such as 2GiB. Default: derived from the device.")
]
AttentionOption = Annotated[
    str | None, typer.Option(help="Attention kernels: blocked or mosaic. Default: chosen by device.")
]
MatmulOption = Annotated[str | None, typer.Option(help="Matrix kernels: xla or mosaic. Default: chosen by device.")]
DeviceMemoryOption = Annotated[
    float | None,
    typer.Option(
        min=0.05, max=1, help="Share of each GPU's memory to take. Default: 0.92, or what the environment says."
    ),
]
MeshOption = Annotated[str, typer.Option(help="Devices for tensor parallelism: a number, or replica=1,kv=4,group=2.")]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Directory for compiled programs. Default: jaxserve/xla in the user's cache directory."),
]
TokensOption = Annotated[
    int | None, typer.Option(min=2, help="Token budget of one step. Default: 512 on CPU, else 2048.")
]
WeightsOption = Annotated[
    Literal["keep", "dequantize"],
    typer.Option(help="Weights that are stored quantised stay so, or become --dtype while they are loaded."),
]
QuantizeOption = Annotated[
    Literal["int8"] | None, typer.Option(help="Quantise the layers' weights while they are loaded.")
]


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """LLM inference in JAX behind the Fireworks AI inference API."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    _spare_the_search_for_accelerators()
    for noisy in ("jax", "orbax", "absl", "httpx", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@app.command()
def serve(
    model: ModelArgument = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(help="Key that clients must send (repeatable). Also: JAXSERVE_API_KEYS, comma separated."),
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File with one key per line.")] = None,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="Name clients use for the model (repeatable). Default: the directory's.")
    ] = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = "keep",
    quantize: QuantizeOption = None,
    max_num_seqs: SeqsOption = None,
    max_model_len: LengthOption = None,
    kv_memory: MemoryOption = None,
    mesh: MeshOption = "1",
    max_num_batched_tokens: TokensOption = None,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait before 429.")] = 1024,
    prefix_caching: Annotated[bool, typer.Option(help="Share the KV pages of equal prompt beginnings.")] = True,
    chat_template: Annotated[
        Path | None, typer.Option(help="Chat template file to use instead of the model's.")
    ] = None,
    chat_format: Annotated[
        str | None,
        typer.Option(help="How the model writes reasoning and tool calls (qwen3, llama3 ...). Default: found out."),
    ] = None,
    default_max_tokens: Annotated[
        int | None, typer.Option(min=1, help="max_tokens where a request has none. Default: chat 200, completions 16.")
    ] = None,
    generation_config: Annotated[
        Literal["auto", "none"],
        typer.Option(help="Sampling defaults that the model ships apply where a request is silent."),
    ] = "auto",
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Ignore unknown request fields instead of refusing.")
    ] = False,
    cors_origin: Annotated[list[str] | None, typer.Option(help="Origin allowed to call from browsers.")] = None,
    compilation_cache: CacheOption = None,
    attention: AttentionOption = None,
    matmul: MatmulOption = None,
    device_memory: DeviceMemoryOption = None,
    shutdown_timeout: Annotated[float, typer.Option(min=0, help="Seconds running requests get at shutdown.")] = 20.0,
    share_prompt_cache: Annotated[
        bool, typer.Option("--share-prompt-cache", help="Share cached prompt beginnings between API keys.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="How log lines are written; json: one object a line, nothing else.")
    ] = "text",
) -> None:
    """Serve a model over HTTP."""
    from jaxserve import serving  # imports jax: not needed for --help
    from jaxserve.api.log_format import LoggedProgress, use_json

    if log_format == "json":
        use_json()

    options = _engine_options(
        model, dtype, max_num_seqs, max_model_len, kv_memory, max_num_batched_tokens, max_waiting, prefix_caching
    )
    options = replace(
        options,
        weights=weights,
        quantize=quantize,
        attention=attention,
        matmul=matmul,
        device_memory=device_memory,
    )
    with _clear_errors():
        bound = serving.bind(host, port)
        address = f"http://{host}:{bound.getsockname()[1]}/v1"
        with LoggedProgress() if log_format == "json" else _Bars() as progress:
            server = serving.Server(
                options,
                mesh_shape=parse_mesh(mesh),
                compilation_cache=compilation_cache or default_compilation_cache(),
                http=serving.HttpOptions(
                    api_keys=serving.api_keys(api_key or [], api_key_file),
                    served_model_names=tuple(served_model_name or ()),
                    chat_template=chat_template,
                    chat_format=chat_format,
                    default_max_tokens=default_max_tokens,
                    lenient=lenient,
                    generation_config=generation_config,
                    cors_origins=tuple(cors_origin or ()),
                    shutdown_timeout=shutdown_timeout,
                    share_prompt_cache=share_prompt_cache,
                ),
                progress=progress,
                on_ready=lambda summary: progress.finish(summary, f"serving on {address}"),
            )
            healthy = server.run(bound)
    raise typer.Exit(0 if healthy else _ENGINE_DIED)


@app.command()
def generate(
    model: ModelArgument = None,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "Once upon a time",
    max_tokens: Annotated[int, typer.Option(min=1)] = 200,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.8,
    top_p: Annotated[float, typer.Option(min=0, max=1)] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, max=100)] = 0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text. Default: a random one.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the completion (repeatable).")] = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = "keep",
    quantize: QuantizeOption = None,
    max_model_len: LengthOption = None,
    kv_memory: MemoryOption = None,
    mesh: MeshOption = "1",
    compilation_cache: CacheOption = None,
) -> None:
    """Complete one prompt, printing the text as it comes."""
    from jaxserve.llm import LLM
    from jaxserve.sampling.params import SamplingParams
    from jaxserve.startup import use_compilation_cache

    options = replace(
        _engine_options(model, dtype, 2, max_model_len, kv_memory, None, 16, False),
        token_buckets=_GENERATE_BUCKETS,
        weights=weights,
        quantize=quantize,
    )
    with _clear_errors():
        use_compilation_cache(compilation_cache or default_compilation_cache())
        sampling = SamplingParams(
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=int.from_bytes(os.urandom(4)) if seed is None else seed,
        )
        with _Bars() as progress:
            llm = LLM.from_options(options, mesh=parse_mesh(mesh), progress=progress)
        with llm:
            sys.stdout.write(prompt)
            for text in llm.stream(prompt, sampling, max_tokens=max_tokens, stop=stop or ()):
                sys.stdout.write(text)
                sys.stdout.flush()
            sys.stdout.write("\n")


@app.command()
def convert(
    model: Annotated[Path, typer.Argument(help="Model directory in hub layout.")],
    out: Annotated[Path, typer.Argument(help="Directory to write: missing or empty.")],
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="Type of what isn't quantised. Default: as stored.")
    ] = None,
    weights: WeightsOption = "keep",
    quantize: QuantizeOption = None,
) -> None:
    """Write a model's parameters as an orbax checkpoint, with its other files beside it; `serve` takes the result."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # nothing to compute; an accelerator may be in use
    from jaxserve.models.conversion import convert as write

    with _clear_errors(), _Bars() as bars:
        told = partial(bars, "convert")
        write(model, out, dtype=dtype, weights=weights, quantize=quantize, progress=told)
    _console.print(f"wrote {out}", style="bold green", highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point of the `jaxserve` script."""
    app()


def parse_mesh(text: str) -> int | tuple[int, int, int]:
    """Reads `8` or `replica=1,kv=4,group=2` (missing axes are 1).

    Raises:
        ModelLoadError: anything else, naming --mesh.
    """
    if text.isdecimal() and int(text) > 0:
        return int(text)
    axes = {"replica": 1, "kv": 1, "group": 1}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name.strip() not in axes or not size.strip().isdecimal() or int(size) < 1:
            raise ModelLoadError(f"--mesh {text!r} is neither a number of devices nor axes such as kv=4,group=2")
        axes[name.strip()] = int(size)
    return axes["replica"], axes["kv"], axes["group"]


def _spare_the_search_for_accelerators() -> None:
    """Without a device node of any accelerator there is only the CPU; jax would look for TPUs first, with errors."""
    nodes = ("accel*", "vfio/*", "nvidia*", "kfd", "dxg")
    if sys.platform == "linux" and not any(True for pattern in nodes for _ in Path("/dev").glob(pattern)):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def default_compilation_cache() -> Path:
    """`$XDG_CACHE_HOME/jaxserve/xla`, or `~/.cache/jaxserve/xla`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "jaxserve" / "xla"


def _engine_options(
    model: str | None,
    dtype: Literal["float32", "bfloat16"] | None,
    max_num_seqs: int | None,
    max_model_len: int | None,
    kv_memory: str | None,
    max_num_batched_tokens: int | None,
    max_waiting: int,
    prefix_caching: bool,
) -> EngineOptions:
    from jaxserve.engine.sizing import EngineOptions, parse_bytes
    from jaxserve.models.remote import local_model_dir
    from jaxserve.startup import bundled_model_dir

    try:
        memory = None if kv_memory is None else parse_bytes(kv_memory)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--kv-memory") from None
    with _clear_errors():
        model_dir = bundled_model_dir() if model is None else local_model_dir(model)
    return EngineOptions(
        model_dir=model_dir,
        dtype=dtype,
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        kv_memory=memory,
        max_num_batched_tokens=max_num_batched_tokens,
        max_waiting=max_waiting,
        prefix_caching=prefix_caching,
    )


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Errors made on purpose end the process with one sentence, not a traceback."""
    try:
        yield
    except JaxserveError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))


def _fail(message: str) -> NoReturn:
    _console.print(f"error: {message}", style="bold red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(_LOAD_FAILED)


class _Bars:
    """Start-up stages as progress bars, then the summary; without a terminal, only finished stages are printed."""

    _LABELS: ClassVar = {"weights": "loading weights", "programs": "compiling programs", "convert": "converting"}

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:>18}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=_console)
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(self._LABELS[stage], total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def finish(self, summary: dict[str, str], last: str) -> None:
        """Stops the bars and prints the start-up summary, one fact a row."""
        self._bars.stop()
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in summary.items():
            table.add_row(name, value)
        _console.print(table)
        _console.print(last, style="bold green", highlight=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
