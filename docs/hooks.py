"""What `mkdocs` makes of the pages: they read well where they lie, and on the site as well.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages. Links to what lies outside docs/ lead to
its place on the site; names of functions and of tests in the theory become links to the reference
and to the test's own text; citations of the theory in docstrings become links to its statements.
"""

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
PICTURES = sorted((ROOT / "figures/pictures").glob("*.png"))
# Where no module is called as the picture.
COMMANDS = {
    "assumptions": "python -m figures.audit assumptions results/audit --out results/figures",
}
# A function that is called as its module.
SHADOWED = {
    "cosa_theory.spectrum.singular_values": "cosa_theory.spectrum.singular_values.singular_values"
}
TEST = re.compile(r"`(tests/[\w/.]+)::(\w+)`")
slug = slugify(case="lower")


def read(path: str) -> str:
    """Return a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made: pages from the top folder, the pictures and their gallery, the proofs."""
    made = {page: read(path) for path, page in PAGES.items()}
    made["gallery.md"] = gallery()
    made |= proofs()
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for path in (*PICTURES, ROOT / "CITATION.cff"):
        name = site_path(path.relative_to(ROOT).as_posix())
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to their places on the site; link what the theory names."""
    here = page.file.src_uri
    if here == "theory.md":
        markdown = re.sub(
            r"`(cosa_theory\.([\w.]+))`",
            lambda found: f"[`{found[2]}`][{SHADOWED.get(found[1], found[1])}]",
            markdown,
        )
        markdown = TEST.sub(
            lambda found: f"[{sentence(found[2])}]({proof_page(found[1])}#{found[2]})", markdown
        )
    source = {page: path for path, page in PAGES.items()}.get(here, f"docs/{here}")
    return re.sub(
        r"(!?\[[^\]]*\]\()([^)\s:#]+)((?:#[^)\s]*)?\))",
        lambda found: found[1] + moved(found[2], source, here, found[1].startswith("!")) + found[3],
        markdown,
    )


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Link the statements of the theory that a docstring cites; print its references plainly."""
    if not page.file.src_uri.startswith("reference/"):
        return html
    anchors = {
        number: slug(f"{number} {title}", "-")
        for number, title in re.findall(
            r"^### (\d+\.\d+) (.*)$", read("docs/theory.md"), flags=re.M
        )
    }

    def linked(found: re.Match[str]) -> str:
        return re.sub(
            r"\d+\.\d+",
            lambda number: f'<a href="../theory.html#{anchors[number[0]]}">{number[0]}</a>',
            "theory" + found[1],
        )

    html = re.sub(r"\[(\d+)\]_(?=\W)", r"[\1]", html)  # the references of numpydoc
    html = re.sub(r"(<p>|^)\.\. \[", r"\1[", html, flags=re.M)
    return re.sub(r"docs/theory\.md((?:,?\s+(?:and\s+)?\d+\.\d+)+)", linked, html)


def on_post_page(output: str, **_: Any) -> str:
    """Name the dialog of the search, which the theme leaves without a name."""
    return output.replace('search" role="dialog"', 'search" role="dialog" aria-label="Search"')


def site_path(path: str) -> str:
    """Return where on the site a file of the repository lies."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/").removeprefix("figures/")


def moved(target: str, source: str, here: str, shown: bool) -> str:
    """Return a link of the file `source` as the page `here` needs it.

    A picture that is only mentioned leads to its place in the gallery.
    """
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if not (ROOT / path).is_file():
        return target
    there = site_path(path)
    if path.endswith(".png") and not shown:
        there = f"gallery.md#{Path(path).stem.replace('_', '-')}"
    return posixpath.relpath(there, posixpath.dirname(here) or ".")


def gallery() -> str:
    """Return the page of all stored pictures: what each shows, and the command that draws it."""
    shown = {
        name: alternative
        for page in ("README.md", "docs/measurements.md")
        for alternative, name in re.findall(
            r"!\[([^\]]*)\]\([^)]*pictures/(\w+)\.png\)", read(page)
        )
    }
    text = "# Gallery\n\nEvery stored picture, and the command that draws it from a stored table.\n"
    for name in (path.stem for path in PICTURES):
        command, caption = COMMANDS.get(name), shown.get(name)
        if not command or not caption:
            about = ast.get_docstring(ast.parse(read(f"figures/{name}.py"))) or ""
            command = command or re.findall(r"`(python -m [^`]+)`", about)[0]
            caption = caption or about.splitlines()[0].rstrip(".")
        anchor = name.replace("_", "-")
        text += (
            f"\n## {name.replace('_', ' ').capitalize()} {{ #{anchor} }}\n\n"
            f"![{caption}](pictures/{name}.png){{ loading=lazy }}\n\n{caption}.\n\n"
            f"```sh\n{command}\n```\n"
        )
    return text


def sentence(test: str) -> str:
    """Return the statement that a test is named after."""
    return test.removeprefix("test_").replace("_", " ")


def proof_page(path: str) -> str:
    """Return the page that shows the tests of a folder."""
    return "proofs/" + posixpath.dirname(path).removeprefix("tests/").replace("/", "-") + ".md"


def proofs() -> dict[str, str]:
    """Return the pages with the text of every test that the theory names."""
    pages: dict[str, str] = {}
    named: dict[tuple[str, str], list[str]] = {}
    for part in re.split(r"^#{2,3} ", read("docs/theory.md"), flags=re.M)[1:]:
        title = part.splitlines()[0]
        for test in TEST.findall(part):
            named.setdefault(test, []).append(
                f"[{title.split()[0]}](../theory.md#{slug(title, '-')})"
            )
    for path in sorted({path for path, _ in named}):
        text = read(path)
        page = proof_page(path)
        folder = posixpath.dirname(path)
        last_in_search = "---\nsearch: {boost: 0.3}\n---\n\n"
        pages.setdefault(page, f"{last_in_search}# The tests of the theory in {folder}\n")
        pages[page] += f"\n## {posixpath.basename(path)}\n"
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and (path, node.name) in named:
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                code = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
                pages[page] += (
                    f"\n### {sentence(node.name).capitalize()} {{ #{node.name} }}\n\n"
                    f"Statement {', '.join(named[path, node.name])}.\n\n"
                    f"```python\n{code}\n```\n"
                )
    listed = "".join(f"- [{Path(page).stem}]({Path(page).name})\n" for page in pages)
    pages["proofs/index.md"] = (
        "# Proofs\n\nEvery statement of [the theory](../theory.md) has tests that fail if it is "
        f"false. Here is their text, by folder of `tests/`:\n\n{listed}"
    )
    return pages
