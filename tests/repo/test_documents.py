"""Links in the documents lead somewhere, and every page is found from the index and on the site."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|^ *```.*?^ *```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    listing = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False).stdout
    return [ROOT / name for name in sorted(filter(None, listing.split("\0"))) if (ROOT / name).is_file()]


def anchors(document: Path) -> set[str]:
    """What headings are called in links: lower case, hyphens for spaces, nothing but letters, digits and hyphens."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(document: Path) -> list[str]:
    found = []
    for link in LINK.findall(CODE.sub("", document.read_text())):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        path = document.parent / target if target else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            found.append(link)
    return found


def test_links_lead_to_files_and_headings() -> None:
    if not documents():
        pytest.skip("not a git checkout")
    assert {str(path.relative_to(ROOT)): links for path in documents() if (links := broken(path))} == {}


@pytest.mark.parametrize("index", ["docs/README.md", "mkdocs.yml"])
def test_every_page_is_in_the_index(index: str) -> None:
    text = (ROOT / index).read_text()
    missing = [page.name for page in DOCS.glob("*.md") if page.name not in text and page.name != "README.md"]
    assert missing == []
