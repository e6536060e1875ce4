"""The card beside an adapter: what it says, that its lines run, and that a card by hand stays."""

import os
import re
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard
from peft import get_peft_model

from cosa_theory.nn import add_cosa, save_cosa
from cosa_theory.nn.peft import CosaConfig
from tests.nn.peft.models import llama

SETTINGS = {"a": 4, "b": 3, "seed": 17, "kind": "sjlt"}


def saved(saver, base, folder):
    """Save an adapter of the model in `base`, which is stored there."""
    llama().save_pretrained(base)
    model = type(llama()).from_pretrained(base)
    if saver == "peft":
        config = CosaConfig(**SETTINGS, target_modules=["q_proj"], task_type="CAUSAL_LM")
        get_peft_model(model, config).save_pretrained(folder)
    else:
        model = add_cosa(model, ["q_proj"], **SETTINGS)
        save_cosa(model, folder, task_type="CAUSAL_LM")
    return folder


def run(folder, code):
    path = os.pathsep.join([os.getcwd(), *sys.path])
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("saver", ["plain", "peft"])
def test_a_card_says_what_the_adapter_is_and_its_lines_load_it(tmp_path, saver):
    folder = saved(saver, tmp_path / "base", tmp_path / "adapter")
    card = ModelCard.load(folder / "README.md")
    assert {"peft", "cosa"} <= set(card.data.tags)
    assert card.data.library_name == "peft"
    assert card.data.base_model == str(tmp_path / "base")
    for says in ("4 × 3 (2 layers)", "24 numbers in 2 cores", "seed 17", "sjlt", "2602.05148"):
        assert says in card.text
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert "import cosa_theory.nn.peft" in code
    done = run(folder, code + "print(model.peft_config['default'].seed)")
    assert done.stdout == "17\n", done.stderr


BY_HAND = {
    "list": "---\nlicense: mit\ntags:\n- mine\n- peft\nlanguage: en\n---\n# Mine\n\nText.\n",
    "indented": "---\ntags:\n  - mine\n  # a remark\nlicense: mit\n---\n\n# Mine\n\nText.\n",
    "inline": "---\ntags: [mine, 'other']\nlicense: mit\n---\n# Mine\n\nText.\n",
    "one": "---\ntags: mine\nlicense: mit\n---\n# Mine\n\nText.\n",
    "other": "---\nlicense: mit\nlibrary_name: mylib\nbase_model: my/b\n---\n# Mine\n\nText.\n",
    "none": "# Mine\n\nText.\n---\nnot: metadata\n",
    "windows": "---\r\nlicense: mit\r\ntags:\r\n- mine\r\n---\r\n# Mine\r\n\r\nText.\r\n",
}


@pytest.mark.parametrize("text", BY_HAND.values(), ids=BY_HAND)
def test_a_card_that_was_written_by_hand_keeps_what_it_says(tmp_path, text):
    (tmp_path / "README.md").write_bytes(text.encode())
    model = add_cosa(llama(), ["q_proj"], **SETTINGS)
    for _ in range(2):
        save_cosa(model, tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    before = ModelCard(text, ignore_metadata_errors=True)
    assert {"peft", "cosa"} <= set(card.data.tags)
    assert len(set(card.data.tags)) == len(card.data.tags)
    if before.data.tags:
        assert set(
            [before.data.tags] if isinstance(before.data.tags, str) else before.data.tags
        ) < {*card.data.tags}
    assert card.data.get("license") == before.data.get("license")
    assert card.data.library_name == (before.data.get("library_name") or "peft")
    assert "# Mine" in card.text
    assert "Text." in card.text
    assert card.text.count("# CoSA adapter") == 1


def test_a_card_that_is_no_text_stays(tmp_path):
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    save_cosa(add_cosa(llama(), ["q_proj"], **SETTINGS), tmp_path)
    assert (tmp_path / "README.md").read_bytes() == b"\xff\xfe\x00"
