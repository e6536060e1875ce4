"""Tables fit the terminal, and show every character of what they name."""

import pytest

from cosa_theory.ground.printable import width_of
from cosa_theory.page.text import render_view
from cosa_theory.page.views import Column, View

LAYERS = [
    f"model.layers.{block}.self_attn.{name}_proj.weight" for block in (1, 10, 11) for name in "qk"
]


def numbers_of(row):
    return {f"c{place}": f"{1000 * row + place}" for place in range(5)}


def view(names=LAYERS):
    columns = [Column("layer", "layer", text=True)]
    columns += [Column(f"c{place}", f"column {place}") for place in range(5)]
    columns += [Column("wins", "wins", text=True)]
    rows = [{"layer": name, "wins": "low rank"} | numbers_of(row) for row, name in enumerate(names)]
    return View.of("Layers", columns, rows)


def cells_shown(text, names=LAYERS):
    """Return, for each row, its names as they are shown and the set of its other cells."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    rows = [[] for _ in names]
    for place, block in enumerate(blocks):
        for row, line in zip(rows, block[3 if place == 0 else 2 :], strict=True):
            row.append(line.split())
    return [
        ({part[0] for part in row}, [cell for part in row for cell in part[1:]]) for row in rows
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_every_cell_is_there(width):
    text = render_view(view(), width)
    assert max(map(width_of, text.splitlines())) <= width
    for row, (names, others) in enumerate(cells_shown(text)):
        assert len(names) == 1
        assert others == [*numbers_of(row).values(), "low", "rank"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_that_differ_are_cut_so_that_they_still_do(width):
    names = [names.pop() for names, _ in cells_shown(render_view(view(), width))]
    assert len(set(names)) == len(LAYERS)


def test_without_a_terminal_nothing_is_cut():
    ((head, *_),) = [render_view(view()).split("\n\n")]
    assert all(name in head for name in LAYERS)


def test_names_reach_the_terminal_with_every_character_seen():
    names = ["a\x1b[31m\nerror: forged\u202e.weight", "b\ud800\x85\u200b"]
    text = render_view(view(names))
    assert r"a\x1b[31m\nerror: forged\u202e.weight" in text
    assert r"b\ud800\x85\u200b" in text
    assert len(text.splitlines()) == 5


def test_columns_stay_aligned_where_signs_are_wide_or_spelt_in_ascii():
    names = ["层.weight", "…", "ΔW"]
    for encoding in ("utf-8", "ascii"):
        lines = render_view(view(names), encoding=encoding).splitlines()[1:]
        lines[1] = lines[1].replace("─", "-")
        ends = {width_of(line[: line.index("low rank")]) for line in lines[2:]}
        assert len(ends) == 1
        assert encoding == "utf-8" or "\n".join(lines).isascii()
