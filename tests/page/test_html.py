"""Parts of a page."""

import pytest

from cosa_theory.page.html import headline_html


@pytest.mark.parametrize(
    ("verdict", "large"),
    [
        ("Low rank wins: by a factor of 3. Twice.", "Low rank wins: "),
        ("Points need 9 dimensions. The cheapest is one: 4 rows.", "Points need 9 dimensions. "),
        ("No matrix was audited.", "No matrix was audited."),
    ],
)
def test_the_first_clause_or_sentence_is_large(verdict, large):
    rest = verdict.removeprefix(large)
    small = f'<span class="rest">{rest}</span>' if rest else ""
    assert headline_html(verdict) == large + small
