"""Any bytes give a value or an InputError of a few short sentences, never another exception."""

import json
import os
import random

import numpy as np
import pytest
from safetensors.numpy import save

from cosa_theory.deltas.adapters import open_adapter
from cosa_theory.ground.array_files import read_array
from cosa_theory.ground.errors import MOST_CHARACTERS, MOST_PROBLEMS, InputError
from cosa_theory.ground.expressions import by_pattern
from cosa_theory.ground.reading import read_json
from cosa_theory.ground.tensor_files import read_header

ODD = ["null", "true", "-1", "0", "1e308", "NaN", '"x"', "[1]", "{}", "1" * 5000, "1" * 400,
       "[" * 3000 + "]" * 3000, '"\\ud800"', '{"(": 1}', '{"": -1}', "1000000000"]  # fmt: skip
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"q": 2},
        "alpha_pattern": {"q": 1}, "use_rslora": False, "fan_in_fan_out": False}  # fmt: skip
COSA = {"peft_type": "COSA", "a": 4, "b": 3, "alpha": 1.5, "seed": 0, "kind": "gaussian",
        "scale": "synthesis", "options": {}, "alpha_pattern": {}, "bias": "none", "dropout": 0.0,
        "layers": {"q": {"key": "q", "size": [5, 4], "core": [4, 3], "L": "", "R": None}},
        }  # fmt: skip
RELEASED = {"peft_type": "COSA", "r": 2, "lora_alpha": 4, "use_compression": True,
            "rank_pattern": {}, "bias": "none", "lora_dropout": 0.0}  # fmt: skip
HEADER = {"q": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {}}
F4 = np.ones((4, 3), np.float32)


def mutated(value, draw):
    """Return a JSON text of the value in which one field, somewhere, is another."""
    text = json.dumps(value)
    whole, places = json.loads(text), []
    stack = [whole]
    while stack:
        one = stack.pop()
        for key in one if isinstance(one, dict) else range(len(one)):
            places.append((one, key))
            if isinstance(one[key], dict | list):
                stack.append(one[key])
    holder, key = draw.choice(places)
    holder[key] = "MUTATED"
    return json.dumps(whole).replace('"MUTATED"', draw.choice(ODD), 1).encode()


def held(read, *arguments):
    """Return whether there was a value; fail unless the refusal is short."""
    try:
        read(*arguments)
    except InputError as error:
        problems = error.problems
    else:
        return True
    assert 0 < len(problems) <= MOST_PROBLEMS
    assert all(len(one) <= MOST_CHARACTERS and one.isprintable() for one in problems)
    return False


@pytest.mark.parametrize("settings", [LORA, COSA, RELEASED], ids=["lora", "cosa", "released"])
def test_any_field_of_an_adapter_may_be_anything(tmp_path, settings):
    draw = random.Random(0)
    tensors = {"q.lora_A.weight": F4[:2], "q.lora_B.weight": F4[:, :2]}
    if settings is COSA:
        tensors = {"q.cosa_Y": F4}
    if settings is RELEASED:
        tensors = {"q.lora_Y.weight": F4, "q.lora_L": np.ones((4, 5), np.float32),
                   "q.lora_R": np.ones((4, 3), np.float32)}  # fmt: skip
    (tmp_path / "adapter_model.safetensors").write_bytes(save(tensors))
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert held(open_adapter, tmp_path, "tuned", False)
    for _ in range(200):
        (tmp_path / "adapter_config.json").write_bytes(mutated(settings, draw))
        held(open_adapter, tmp_path, "tuned", False)


def test_any_bytes_may_stand_in_a_header_or_an_array(tmp_path):
    draw, path, array = random.Random(1), tmp_path / "x.safetensors", tmp_path / "x.npy"
    np.save(array, F4)
    whole = array.read_bytes()
    for _ in range(400):
        text = mutated(HEADER, draw)
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
        held(read_header, path)
        held(read_array, str(path), "CORE")
        damaged = bytearray(whole[: draw.choice([None, draw.randrange(len(whole))])])
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged)) if damaged else 0 : 0] = draw.choice(
                [b"{", b"-" * 300, b"\x00", b"(", b"True", b"9" * 30]
            )
        array.write_bytes(damaged)
        held(read_array, str(array), "CORE")


def test_a_pipe_a_folder_and_a_loop_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "loop.npy").symlink_to(tmp_path / "loop.npy")
    for name in ("pipe.npy", "loop.npy", "", "n" * 5000):
        assert not held(read_array, str(tmp_path / name), "CORE")
        assert not held(read_json, tmp_path / name)


def test_an_expression_that_would_take_minutes_is_given_up(tmp_path):
    hard = {"(" + "a|a)(" * 30 + "b)": 1}
    assert not held(by_pattern, hard, "a" * 31, 0, "file: rank_pattern")
    assert by_pattern({"q": 1, r"layers\.\d+\.(k|v)": 2}, "model.layers.10.v", 0) == 2
