"""Runs other people's tests against one server, and prints what came of them: the table of docs/judges.md.

    scripts/judges.py [--url URL | --model MODEL] [--llama-tests DIRECTORY --stories DIRECTORY] [--ten-minutes]

Without `--url` a server is started, of the bundled model unless another is named. llama.cpp's tests need their
directory (tools/server/tests; the sdist of llama-cpp-python has it) and stories260K, the model they are about.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
JUDGES = ROOT / "tests" / "judges"
OURS = ("tests/judges", "tests/api/test_fireworks_sampler.py", "tests/api/test_fireworks_types.py")
FUZZ = "tests/api/test_fuzz.py::test_generated_requests"
THEIR_NAMES = ("tinyllama-2", "test", "davinci-002", "gpt-3.5-turbo", "gpt-3.5-turbo-instruct", "gpt-4.1")
ABOUT_SHAPES = (
    "unit/test_chat_completion.py",
    "unit/test_compat_anthropic.py",
    "unit/test_compat_oai_responses.py",
    "unit/test_basic.py",
    "unit/test_security.py",
    "unit/test_tokenize.py",
    "unit/test_ignore_eos.py",
    "unit/test_completion.py",
)
"""Of llama.cpp's tests, those about shapes that this server has too; the others test that engine's own routes."""


def run(directory: Path, arguments: list[str], environment: dict[str, str]) -> list[tuple[str, str, str]]:
    """(suite, test, outcome) of each test."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", f"--junitxml={report}"]
        subprocess.run([*command, *arguments], cwd=directory, env={**os.environ, **environment}, check=False)
        cases = list(ElementTree.parse(report).iter("testcase"))
    return [(str(case.get("classname")), str(case.get("name")), outcome(case)) for case in cases]


def run_llama(directory: Path, model: str) -> list[tuple[str, str, str]]:
    """llama.cpp's tests, against a server of the model they are about, under every name that they call it."""
    sys.path.insert(0, str(JUDGES))
    from judged_server import serving

    named = [part for name in THEIR_NAMES for part in ("--served-model-name", name)]
    with serving(model, "--lenient", *named) as url:
        port = url.rsplit(":", 1)[-1]
        shim = {"DEBUG_EXTERNAL": "1", "PORT": port, "JUDGED_MODEL": THEIR_NAMES[0], "PYTHONPATH": str(JUDGES)}
        return run(directory, ["-p", "llama_server", *ABOUT_SHAPES], shim)


def outcome(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case}
    return "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server of a chat model")
    parser.add_argument("--model", default="story", help="what `serve` takes, for a server that is started here")
    parser.add_argument("--ten-minutes", action="store_true", help="schemathesis for ten minutes, not 45 seconds")
    parser.add_argument("--llama-tests", type=Path, help="llama.cpp's tools/server/tests")
    parser.add_argument("--stories", help="directory of stories260K")
    options = parser.parse_args()
    fuzz = FUZZ + ("_for_ten_minutes" if options.ten_minutes else "")
    judged = {"JAXSERVE_JUDGE_URL": options.url} if options.url else {"JAXSERVE_JUDGE_MODEL": options.model}
    found = run(ROOT, ["-m", "", "-o", "asyncio_mode=auto", *OURS, fuzz], judged)
    if options.llama_tests and options.stories:
        found += run_llama(options.llama_tests, options.stories)
    counts: dict[str, Counter[str]] = {}
    for suite, _, result in found:
        counts.setdefault(suite, Counter())[result] += 1
    for suite, counter in counts.items():
        print(f"| {suite} | {counter['passed']} | {counter['failed']} | {counter['skipped']} |")
    for suite, name, result in found:
        if result == "failed":
            print(f"failed: {suite} {name}")


if __name__ == "__main__":
    main()
