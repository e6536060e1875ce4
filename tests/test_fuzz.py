"""Every reader, on files damaged at random: a value or an InputError of a few short sentences."""

import random

import pytest

from tests.fuzz import SUBJECTS, run

CASES = {"base": 15, "results": 40, "tables": 60, "pair": 60}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_any_damage_gives_a_value_or_short_sentences(subject, tmp_path):
    for case in range(CASES.get(subject, 120)):
        run(subject, tmp_path / "now", random.Random(f"0/{case}"))
