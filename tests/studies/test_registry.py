"""Studies register themselves: what is shown is found by its command, and only that is imported."""

import subprocess
import sys

import pytest

from cosa_theory import studies
from cosa_theory.page.presentation import Drawing

COMMANDS = {"audit", "experiments", "finetune", "jl", "plan", "recover", "rip", "spectrum"}


def test_every_command_whose_results_are_stored_has_a_presentation():
    assert set(studies.commands()) >= COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_presentation_has_a_title_terms_and_captioned_figures(command):
    shown = studies.presentation(command)
    assert shown.title
    assert all(len(term) == 2 for term in shown.terms)
    for drawing in shown.figures().values():
        assert isinstance(drawing, Drawing)
        assert drawing.caption.endswith(".")


def test_looking_one_up_imports_no_other_study_and_nothing_that_draws():
    code = (
        "import sys; from cosa_theory.studies import presentation; presentation('audit');"
        "print([name for name in sys.modules if name.startswith(('matplotlib', 'jinja2'))"
        " or name.startswith('cosa_theory.studies.') and name.count('.') > 2])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = eval(found.stdout)
    assert modules
    assert all(name.startswith("cosa_theory.studies.audit.") for name in modules), modules
