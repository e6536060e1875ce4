"""The site: every page is reached, every link leads somewhere, nothing comes from elsewhere."""

import logging
import re
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from tests.page.browser import chromium

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The whole site, as `make docs` builds it."""
    warnings = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger("mkdocs").addHandler(handler)
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
    build(config)
    logging.getLogger("mkdocs").removeHandler(handler)
    return folder, warnings, config


def test_no_link_is_broken_and_no_page_is_left_out(site):
    assert site[1] == []


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site[0].rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]*src=\"?https?:", html), page
        assert not re.findall(r"<link[^>]*stylesheet[^>]*href=\"?https?:", html), page
    polyfills = load_config(str(ROOT / "mkdocs.yml")).extra["polyfills"]
    assert polyfills == ["iframe-worker.js"]


def test_every_statement_leads_to_the_text_of_its_tests(site):
    theory = (site[0] / "theory.html").read_text(encoding="utf-8")
    written = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`tests/([\w/]+)/\w+\.py::(\w+)`", written))
    for folder, test in named:
        page = f"proofs/{folder.replace('/', '-')}.html"
        assert f'href="{page}#{test}"' in theory
        shown = (site[0] / page).read_text(encoding="utf-8")
        assert f'id="{test}"' in shown
        assert f'<span class="nf">{test}</span>' in shown


def test_all_that_the_theory_names_is_in_the_reference():
    pages = "\n".join(path.read_text() for path in (ROOT / "docs/reference").glob("*.md"))
    known = set(re.findall(r"^::: ([\w.]+)$", pages, flags=re.MULTILINE))
    for room in re.findall(r"^::: ([\w.]+)\n    options:", pages, flags=re.MULTILINE):
        code = (ROOT / room.replace(".", "/") / "__init__.py").read_text(encoding="utf-8")
        (names,) = re.findall(r"^__all__ = \[(.*?)\]", code, flags=re.MULTILINE | re.DOTALL)
        known.remove(room)
        known |= {f"{room}.{name}" for name in re.findall(r'"(\w+)"', names)}
    written = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(cosa_theory\.[\w.]+)`", written):
        assert any(f"{name}.".startswith(f"{one}.") for one in known), name


def test_the_gallery_shows_every_stored_picture_with_its_command(site):
    html = (site[0] / "gallery.html").read_text(encoding="utf-8")
    pictures = sorted((ROOT / "figures/pictures").glob("*.png"))
    assert re.sub(r"<[^>]*>", "", html).count("python -m figures.") == len(pictures)
    for picture in pictures:
        assert (site[0] / "pictures" / picture.name).read_bytes() == picture.read_bytes()
        assert f'src="pictures/{picture.name}"' in html


@pytest.mark.timeout(300)
def test_pages_fit_and_can_be_used_by_everyone(site):
    from axe_playwright_python.sync_playwright import Axe

    wrongs = []
    with chromium() as browser:
        for scheme, page in (
            *(("light", page) for page in ("index", "measurements", "decide")),
            *(("dark", page) for page in ("index", "reference/laws")),
        ):
            view = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 900})
            view.on("console", lambda said: wrongs.append(said.text) if said.type == "error" else 0)
            view.on("pageerror", lambda error: wrongs.append(str(error)))
            view.goto((site[0] / f"{page}.html").as_uri())
            view.wait_for_selector("nav.md-code__nav[aria-label]", state="attached")
            assert view.evaluate("document.documentElement.scrollWidth") == 390
            assert wrongs == []
            # Without reading style sheets by requests, which a page from the disk may not send.
            found = Axe().run(view, options={"preload": False}).response["violations"]
            assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
            view.close()
