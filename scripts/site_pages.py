"""What the documentation site has beside docs/: pages of other folders, and the code's reference (a hook of mkdocs).

Links that lead out of docs/ work in the repository; on the site they lead to the page made of the file, or are text.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import basename, dirname, normpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md", "tests/README.md": "tests.md"}
"""Files outside docs/ -> pages of the site."""
REFERENCE = {
    "notebook": ["jaxserve.llm.LLM", "jaxserve.llm.Completion", "jaxserve.sampling.params.SamplingParams"],
    **{room: [f"jaxserve.{room}"] for room in ("api", "engine", "models", "sampling", "text", "options")},
}
"""Pages of the reference -> what stands on them, submodules included."""
LINK = re.compile(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that docs/ doesn't hold."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for page, names in REFERENCE.items():
        blocks = "\n\n".join(f"::: {name}" for name in names)
        files.append(File.generated(config, f"reference/{page}.md", content=f"# {page}\n\n{blocks}\n"))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links between files of the repository into links between pages."""
    path = page.file.src_uri
    source = next((source for source, made in PAGES.items() if made == path), f"docs/{path}")
    return LINK.sub(lambda link: _relinked(link, dirname(source)), markdown)


def _relinked(link: re.Match[str], folder: str) -> str:
    text, target, anchor = link[1], normpath(f"{folder}/{link[2]}"), link[3] or ""
    if target in PAGES:
        return f"[{text}]({PAGES[target]}{anchor})"
    if dirname(target) == "docs":
        return f"[{text}]({basename(target)}{anchor})"
    return text
