"""The tutorials print what they show."""

import re

import pytest

from tests.tutorials import PAGES, outputs

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_prints_what_it_shows(page, tmp_path):
    blocks = outputs(page.read_text(encoding="utf-8"), tmp_path)
    assert any(printed for _, printed in blocks)
    for found, printed in blocks:
        shown = found["shown"] or ""
        assert _NUMBER.sub("#", printed) == _NUMBER.sub("#", shown)
        for here, there in zip(_NUMBER.findall(printed), _NUMBER.findall(shown), strict=True):
            # Other versions of the libraries may round the last digit shown to its neighbour.
            unit = 10.0 ** -len(there.partition(".")[2])
            difference = float(here.replace(",", "")) - float(there.replace(",", ""))
            assert abs(difference) <= (1.01 * unit if "." in there else 1e-9), (here, there)
