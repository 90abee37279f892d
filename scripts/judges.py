"""Runs other people's tests against one server, and prints what came of them: the table of docs/judges.md.

    scripts/judges.py [--url http://127.0.0.1:8000] [--llama-tests llama.cpp/tools/server/tests] [--stories URL]

Without `--url` a server of the bundled model is started. llama.cpp's tests need their directory (the sdist of
llama-cpp-python has it) and a server of stories260K.
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


def outcome(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case}
    return "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server of a chat model")
    parser.add_argument("--llama-tests", type=Path, help="llama.cpp's tools/server/tests")
    parser.add_argument("--stories", help="a running server of stories260K, as host:port on this machine")
    options = parser.parse_args()
    ours = [
        "-m",
        "",
        "-o",
        "asyncio_mode=auto",
        "tests/judges",
        "tests/api/test_fireworks_sampler.py",
        "tests/api/test_fireworks_types.py",
    ]
    found = run(ROOT, ours, {"JAXSERVE_JUDGE_URL": options.url} if options.url else {})
    if options.llama_tests and options.stories:
        port = options.stories.rsplit(":", 1)[-1].strip("/")
        shim = {"DEBUG_EXTERNAL": "1", "PORT": port, "JUDGED_MODEL": "stories260K", "PYTHONPATH": str(JUDGES)}
        found += run(options.llama_tests, ["-p", "llama_server", *ABOUT_SHAPES], shim)
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
