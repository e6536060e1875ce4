"""The card beside an adapter: what it says, that its lines run, and that a card by hand stays."""

import os
import re
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard
from peft import get_peft_model

from cosa_theory.nn import add_cosa, save_cosa
from cosa_theory.nn.lora import to_lora
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


def python_of(card):
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    return code


@pytest.mark.parametrize("saver", ["plain", "peft"])
def test_a_card_says_what_the_adapter_is_and_how_to_load_it(tmp_path, saver):
    folder = saved(saver, tmp_path / "base", tmp_path / "adapter")
    card = ModelCard.load(folder / "README.md")
    assert {"peft", "cosa"} <= set(card.data.tags)
    assert card.data.library_name == "peft"
    assert card.data.base_model == str(tmp_path / "base")
    for says in ("4 × 3 (2 layers)", "24 numbers in 2 cores", "seed 17", "sjlt", "2602.05148"):
        assert says in card.text
    assert python_of(card).startswith("import cosa_theory.nn.peft")


def test_the_lines_of_a_card_load_the_adapter_in_a_new_process(tmp_path):
    """Those of an export need nothing of this library, so they go first."""
    saved("plain", tmp_path / "base", tmp_path / "adapter")
    to_lora(tmp_path / "adapter", tmp_path / "lora")
    card = ModelCard.load(tmp_path / "lora" / "README.md")
    assert {"peft", "lora"} <= set(card.data.tags)
    assert "| rank | 3 |" in card.text
    code = "import os, sys\n"
    for name in ("lora", "adapter"):
        code += f"os.chdir({str(tmp_path / name)!r})\n"
        code += python_of(ModelCard.load(tmp_path / name / "README.md"))
        code += "print(model.peft_config['default'].peft_type, 'cosa_theory' in sys.modules)\n"
    path = os.pathsep.join([os.getcwd(), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split("\n")[:2] == ["PeftType.LORA False", "PeftType.COSA True"], done.stderr


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
