"""A training as a file: sections, what stands over what, and errors in a sentence."""

import pytest

from cosa_theory.ground.errors import InputError
from experiments.finetune.config import read

PARENT = 'data = "r52"\nrank = 4\n[lora]\nbatch = 2\n[cosa]\ncore = [8, 4]\n'
CHILD = 'extends = "parent.toml"\nbatch = 16\n[lora]\nrank = 2\n'


@pytest.fixture
def child(tmp_path):
    (tmp_path / "parent.toml").write_text(PARENT)
    (tmp_path / "child.toml").write_text(CHILD)
    return tmp_path / "child.toml"


def test_a_file_stands_over_its_parent_a_section_over_both_and_a_setting_over_all(child):
    lora = read(child, ["method=lora"])
    assert (lora.data, lora.batch, lora.rank, lora.core) == ("r52", 2, 2, ())
    cosa = read(child, ["core=[2, 3]", "data=20newsgroups"])
    assert (cosa.data, cosa.batch, cosa.rank, cosa.core) == ("20newsgroups", 16, 4, (2, 3))


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("rnk = 3", [], r"no field 'rnk', only rank"),
        ("rank = 0", [], "rank is 0: it must be a whole number of at least 1"),
        ('rank = "8"', [], "rank is '8': it must be a whole number"),
        ("rank = true", [], "rank is True: it must be a whole number"),
        ("[dora]\n[loora]\nrank = 2", [], "section of .* is 'loora': it must be one of lora"),
        ('method = "loa"', [], "method is 'loa': it must be one of lora, rslora"),
        ("", ["method=lora", "core=[1, 2]"], r"core is \(1, 2\): it must be left out: lora"),
        ("core = [4, 0]", [], r"core is \(4, 0\): it must be two whole numbers of at least 1"),
        ("patience = 2", [], "evaluate is 0: it must be at least 1 where patience"),
        ("watch = 2", [], "evaluate is 0: it must be at least 1 where watch"),
        ("[lora]\nrnk = 3", [], r"\[lora\] has 'rnk', no field that a method's section sets"),
        ('[lora]\nmethod = "cosa"', [], r"\[lora\] has 'method', no field"),
        ('template = "chatml"', [], "template is 'chatml': it must be one of '', alpaca, chat"),
        ('grades = ["gsm9k"]', [], "grades is 'gsm9k': it must be one of gsm8k"),
        ("final_rank = 9", [], "final_rank is 9: it must be at most the rank, 8"),
        ("learning_rate = nan", [], "learning_rate is nan: it must be a finite number"),
        ("epochs = 1e300", [], r"epochs is 1e\+300: it must be .*at most 1e\+06"),
        ("seed = 4294967296", [], "seed is 4294967296: it must be a whole number from 0 to 4,294"),
        ("", ["rank"], "--set is 'rank': it must be a field and its value"),
        ('left = "identity"', [], "shape is 'memory': it must be whole where left is"),
        ("rank = ", [], "Invalid value"),
        ('extends = "one.toml"', [], "it extends itself"),
        (f'extends = "{"x/../" * 3}one.toml"', [], "it extends itself"),
        ("whiten = true", [], "whiten is True: it must be false: gaussian takes no such option"),
        ('extends = "none.toml"', [], r"none\.toml"),
        ("extends = 3", [], "extends is 3: it must be a file"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(tmp_path, text, settings, words):
    (tmp_path / "x").mkdir()
    (tmp_path / "one.toml").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path / "one.toml", settings)
    assert "\n" not in str(caught.value)
