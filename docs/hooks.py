"""Show files that lie outside docs, such as CONTRIBUTING.md and the records, on the site as well.

Links between files are written for the repository. On the site the files outside docs stand one
folder deeper, beside those inside, so that links across that border lose a ``../`` or a ``docs/``.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = "docs"
RECORDS = ("experiments/records/*/README.md", "experiments/records/*/result.png")
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "RESULTS.md", *RECORDS)
LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside docs."""
    for path in sorted(each for pattern in OUTSIDE for each in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into links of the site."""
    is_outside = page.file.generated_by is not None
    here = (ROOT if is_outside else ROOT / DOCS) / page.file.src_uri
    depth = page.file.src_uri.count("/")

    def moved(found: re.Match[str]) -> str:
        target = (here.parent / found[1]).resolve().relative_to(ROOT).as_posix()
        return f"]({'../' * depth}{target.removeprefix(f'{DOCS}/')}{found[2] or ''})"

    return LINK.sub(moved, markdown)
