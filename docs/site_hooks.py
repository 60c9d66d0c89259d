"""Hooks of mkdocs: what pages link to in the repository outside docs/ is part of the site."""

from __future__ import annotations

import os.path
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "examples/fm_movielens/README.md": "examples/fm_movielens.md",
    "examples/fm_movielens/deep_keras.py": "examples/deep_keras.py.txt",
    "conf/example-k8s.yaml": "conf/example-k8s.yaml.txt",
    "LICENSE": "LICENSE.txt",
}
"""Path in the repository -> path in the site."""
_LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")


def on_files(files: Any, config: Any) -> Any:
    """Add the files of `PLACES`."""
    for source, place in PLACES.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Have the links of a page, which hold in the repository, hold in the site."""
    place = page.file.src_uri
    source = next((s for s, p in PLACES.items() if p == place), f"docs/{place}")

    def moved(link: re.Match[str]) -> str:
        target = os.path.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        there = PLACES.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(there, posixpath.dirname(place) or ".")

    return _LINK.sub(moved, markdown)
