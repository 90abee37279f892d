"""The commands. Heavy imports stand inside them: `--help` and refused flags must not wait for jax."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from jaxserve import __version__
from jaxserve.cli.curl import base_url, curl_lines
from jaxserve.cli.help_text import GroupedCommand
from jaxserve.cli.parameters import ignore_service_links, takes_only, takes_options
from jaxserve.cli.progress import AboveBars, Bars, clear_errors, console, leave_full_disks, output
from jaxserve.errors import ExitCode, ModelLoadError
from jaxserve.options import ApiOptions, BenchOptions, EngineOptions, HostsOptions, ServeOptions, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jaxserve.api.log_format import LoggedProgress
    from jaxserve.cli.talk import Model
    from jaxserve.hosts.place import Place

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

_GENERATE_BUCKETS = (4, 64, 512)
"""Token buckets for one prompt: few, since they are compiled while somebody waits."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jaxserve {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """LLM inference in JAX behind the Fireworks AI inference API."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        handlers=[AboveBars() if console.is_terminal else logging.StreamHandler()],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    ignore_service_links()
    _spare_the_search_for_accelerators()
    for noisy in ("jax", "orbax", "absl", "httpx", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@app.command(cls=GroupedCommand)
@takes_options("serve")
def serve(**options: Any) -> None:
    """Serve a model over HTTP."""
    with clear_errors():
        process, api = build(ServeOptions, options), build(ApiOptions, options)
        from jaxserve.hosts.place import find_place

        place = find_place(build(HostsOptions, options))
        if place is not None and process.on_engine_death == "stay":
            raise ModelLoadError("--on-engine-death stay is for one host: a group ends with the first that is lost")
    with _leaving(at_once=place is not None), clear_errors():
        from jaxserve.api.log_format import LoggedProgress, use_json
        from jaxserve.resolve import default_model_dir

        if process.log_level is not None:
            logging.getLogger().setLevel(process.log_level.upper())
        if process.log_format == "json":
            use_json()
        engine = _engine_options(options, default_model_dir)
        process = replace(process, compilation_cache=process.compilation_cache or default_compilation_cache())
        with LoggedProgress() if process.log_format == "json" else Bars() as progress:
            if place is not None and not place.leads:
                code = _follow(place, engine, process, progress)
            else:
                code = _serve(place, engine, process, api, progress)
        raise typer.Exit(code)


def _serve(
    place: Place | None, engine: EngineOptions, process: ServeOptions, api: ApiOptions, progress: Bars | LoggedProgress
) -> ExitCode:
    from jaxserve import serving

    bound = serving.bind(process.host, process.port)
    address = base_url(process.host, bound.getsockname()[1])

    def on_ready(summary: dict[str, str]) -> None:
        lines = curl_lines(address, server.names[0], chats=server.chats, keyed=server.keyed)
        progress.finish(summary, f"serving on {address}", lines)

    if place is None:
        server = serving.Server(engine, process, api, progress=progress, on_ready=on_ready)
        return server.run(bound)
    from jaxserve.hosts.devices import disconnect_devices
    from jaxserve.hosts.leading import leading

    with leading(place, engine) as leader:
        server = serving.Server(engine, process, api, progress=progress, on_ready=on_ready, leader=leader)
        code = leader.finish(server.run(bound))
    if not code.faulty:
        disconnect_devices()
    return code


def _follow(place: Place, engine: EngineOptions, process: ServeOptions, progress: Bars | LoggedProgress) -> ExitCode:
    from jaxserve.following import follow
    from jaxserve.startup import use_compilation_cache

    use_compilation_cache(process.compilation_cache)
    address = f"host 0 serves, at {place.coordinator.rpartition(':')[0]}"
    return follow(place, engine, progress=progress, on_ready=lambda summary: progress.finish(summary, address))


@contextmanager
def _leaving(*, at_once: bool) -> Iterator[None]:
    """A group of hosts that ended by a fault waits for nothing: collectives and jax's farewell may never return."""
    try:
        yield
    except typer.Exit as leaving:
        if at_once and ExitCode(leaving.exit_code).faulty:
            logging.shutdown()
            sys.stderr.flush()
            os._exit(leaving.exit_code)
        raise


@app.command(cls=GroupedCommand)
@takes_options("generate")
def generate(
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "Once upon a time",
    max_tokens: Annotated[int, typer.Option(min=1)] = 200,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.8,
    top_p: Annotated[float, typer.Option(min=0, max=1)] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, max=100)] = 0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text. Default: a random one.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the completion (repeatable).")] = None,
    **options: Any,
) -> None:
    """Complete one prompt, printing the text as it comes."""
    with clear_errors():
        engine = replace(
            _engine_options(options), max_num_seqs=2, prefix_caching=False, token_buckets=_GENERATE_BUCKETS
        )
        from jaxserve.described import check_model

        check_model(engine)
        from jaxserve.llm import LLM
        from jaxserve.sampling.params import SamplingParams
        from jaxserve.startup import use_compilation_cache

        use_compilation_cache(options["compilation_cache"] or default_compilation_cache())
        sampling = SamplingParams(
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=int.from_bytes(os.urandom(4)) if seed is None else seed,
        )
        with Bars() as progress:
            llm = LLM.from_options(engine, progress=progress)
        with llm:
            sys.stdout.write(prompt)
            for text in llm.stream(prompt, sampling, max_tokens=max_tokens, stop=stop or ()):
                sys.stdout.write(text)
                sys.stdout.flush()
            sys.stdout.write("\n")


@app.command(cls=GroupedCommand)
@takes_options("generate")
def chat(
    api_key: Annotated[str | None, typer.Option(help="Key of the server.", envvar="JAXSERVE_API_KEY")] = None,
    **options: Any,
) -> None:
    """Talk to a server (MODEL is its URL), or to a model in this process."""
    with clear_errors():
        from jaxserve.cli.talk import Talk
        from jaxserve.cli.terminal import converse

        with _answering(options, api_key) as model:
            converse(Talk(model), Console(), history=default_compilation_cache().parent / "chat_history")


@contextmanager
def _answering(options: Mapping[str, Any], api_key: str | None) -> Iterator[Model]:
    from jaxserve.cli.answering import LocalModel, RemoteModel

    if (options["model"] or "").startswith(("http://", "https://")):
        yield RemoteModel(options["model"], api_key)
        return
    from jaxserve.llm import LLM
    from jaxserve.startup import use_compilation_cache

    use_compilation_cache(options["compilation_cache"] or default_compilation_cache())
    engine = replace(_engine_options(options), max_num_seqs=2)
    with Bars() as progress:
        llm = LLM.from_options(engine, progress=progress)
    with llm:
        yield LocalModel(llm)


@app.command(cls=GroupedCommand)
@takes_only(BenchOptions)
def bench(
    url: Annotated[str, typer.Argument(help="Base URL of an OpenAI-compatible server, with or without /v1.")],
    api_key: Annotated[str | None, typer.Option(help="Key of the server.", envvar="JAXSERVE_API_KEY")] = None,
    **options: Any,
) -> None:
    """Put load on any OpenAI-compatible server; tell latencies and throughput (docs/bench.md)."""
    with clear_errors():
        from jaxserve.cli.bench_command import load

        load(url, api_key, build(BenchOptions, options))


@app.command(cls=GroupedCommand)
@takes_options("convert")
def convert(
    model: Annotated[str, typer.Argument(help="What `serve` takes as MODEL.")],
    out: Annotated[Path, typer.Argument(help="Directory to write, missing or empty; also gs://...")],
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="Type of what isn't quantised. Default: as stored.")
    ] = None,
    **options: Any,
) -> None:
    """Write a model's parameters as an orbax checkpoint, with its other files beside it; `serve` takes the result."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # nothing to compute; an accelerator may be in use
    from jaxserve.models.conversion import convert as write
    from jaxserve.resolve import resolve_model

    with clear_errors(), Bars() as bars:
        write(resolve_model(model), out, dtype=dtype, progress=partial(bars, "convert"), **options)
    console.print(f"wrote {out}", style="bold green", highlight=False, markup=False, soft_wrap=True)


@app.command(cls=GroupedCommand)
@takes_options("plan")
def plan(
    model: Annotated[Path, typer.Argument(help="Directory with the model's config.json; weights are not needed.")],
    topology: Annotated[str, typer.Option(help="Where it would run: v6e, v5e:2x4, v5p:2x2x4, h100:8 ...")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    **options: Any,
) -> None:
    """Say what a model needs on a TPU or GPU topology and how fast it can be there, from its config alone."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # the devices are elsewhere
    with clear_errors():
        from jaxserve.ahead.chips import parse_topology
        from jaxserve.described import check_model

        place, folder = parse_topology(topology), model.parent if model.is_file() else model
        engine = build(EngineOptions, options, model_dir=folder)
        check_model(engine)
        from jaxserve.ahead.plan import make_plan
        from jaxserve.ahead.report import as_json as to_json
        from jaxserve.ahead.report import show

        made = make_plan(engine, place)
    if as_json:
        sys.stdout.write(json.dumps(to_json(made), indent=2) + "\n")
    else:
        show(made, output)
    raise typer.Exit(0 if made.problem is None else ExitCode.CANNOT_SERVE)


@app.command("compile", cls=GroupedCommand)
@takes_options("compile")
def compile_ahead(
    model: Annotated[str, typer.Argument(help="What `serve` takes as MODEL; of a directory config.json is enough.")],
    out: Annotated[Path, typer.Argument(help="Directory to write: missing or empty.")],
    topology: Annotated[str, typer.Option(help="Where they will run: v6e, v5e:2x4 ...; here = this machine.")],
    **options: Any,
) -> None:
    """Compile all programs of a model for devices that are elsewhere; `serve --programs` loads the result there."""
    with clear_errors(), Bars() as bars:
        from jaxserve.ahead.chips import HERE, parse_topology
        from jaxserve.described import check_model

        if topology != HERE:
            parse_topology(topology)
        from jaxserve.resolve import resolve_model

        engine = build(EngineOptions, options, model_dir=resolve_model(model))
        check_model(engine)
        from jaxserve.ahead import compilation, compiler

        if topology != HERE:
            compiler.prepare()
        compilation.compile_programs(engine, topology, out, partial(bars, "programs"))
    console.print(f"wrote {out}", style="bold green", highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point of the `jaxserve` script."""
    try:
        app()
    finally:
        leave_full_disks()


def default_compilation_cache() -> Path:
    """`xla` in the user's cache directory."""
    from jaxserve.resolve.chat_model import cache_directory

    return cache_directory() / "xla"


def _spare_the_search_for_accelerators() -> None:
    """Without a device node of any accelerator there is only the CPU; jax would look for TPUs first, with errors."""
    nodes = ("accel*", "vfio/*", "nvidia*", "kfd", "dxg")
    if sys.platform == "linux" and not any(True for pattern in nodes for _ in Path("/dev").glob(pattern)):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _engine_options(options: Mapping[str, Any], default: Callable[[], Path] | None = None) -> EngineOptions:
    """The engine's options, its model found; where none is named, `default` or else the bundled one."""
    from jaxserve.resolve import bundled_model_dir, resolve_model

    model = options["model"]
    found = (default or bundled_model_dir)() if model is None else resolve_model(model)
    return build(EngineOptions, options, model_dir=found)
