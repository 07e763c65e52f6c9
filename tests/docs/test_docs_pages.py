"""The pages hold together: code compiles, links lead somewhere, the lifecycle is the code's own."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from pages import DOCS, LINK, PAGES, ROOT, Block, anchors, blocks

BLOCKS = [block for page in PAGES for block in blocks(page)]


def _of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


@pytest.mark.parametrize("block", _of("python"), ids=lambda block: block.where)
def test_python_blocks_compile(block: Block) -> None:
    """Every Python block is a whole module, and imports from Treadle only names that it has."""
    tree = ast.parse(block.text, block.where)
    compile(tree, block.where, "exec")
    import treadle

    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "treadle":
            missing = [name.name for name in node.names if name.name not in treadle.__all__]
            assert not missing, f"{block.where}: treadle has no {', '.join(missing)}"


@pytest.mark.process
@pytest.mark.parametrize("block", _of("sh", "bash"), ids=lambda block: block.where)
def test_shell_blocks_are_shell(block: Block) -> None:
    """Every shell block parses."""
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, f"{block.where}: {done.stderr}"


@pytest.mark.parametrize("block", _of("json"), ids=lambda block: block.where)
def test_json_blocks_are_json(block: Block) -> None:
    """Every JSON block parses."""
    json.loads(block.text)


def test_every_block_says_its_language() -> None:
    """No fence is left without a language, so that all of them are checked and coloured."""
    assert not [block.where for block in BLOCKS if not block.language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    """A relative link names a file that exists, and its anchor a heading of that page."""
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}; there is {sorted(anchors(file))}"


def test_every_page_is_reached_from_the_readme() -> None:
    """Whoever begins at the README can click his way to every page of the documentation."""
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            linked = (target.partition("#")[0] for target in LINK.findall(page.read_text()) if "://" not in target)
            todo += [(page.parent / path).resolve() for path in linked if path]
    assert {page for page in DOCS.rglob("*.md") if "internals" not in page.parts} <= seen


def _make_lifecycle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_lifecycle", DOCS / "make_lifecycle.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lifecycle_page_is_what_the_table_says() -> None:
    """docs/lifecycle.md was made anew after the last change of the table: run `python docs/make_lifecycle.py`."""
    text = (DOCS / "lifecycle.md").read_text()
    assert _make_lifecycle().page(text) == text


def test_the_lifecycle_diagram_has_every_row_once() -> None:
    """Each row of the table is one arrow of the diagram and one line of the page's table."""
    made = _make_lifecycle()
    arrows = [line.strip() for line in made.diagram().splitlines() if "-->" in line and "[*]" not in line]
    assert len(arrows) == len(set(arrows)) == len(made.TABLE) == len(made.table().splitlines()) - 2
