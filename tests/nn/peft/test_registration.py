"""Importing the package makes PEFT know the method, once."""

import subprocess
import sys

import pytest
from peft import PeftConfig, PeftType
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)

from cosa_theory.nn.peft import CosaConfig, CosaModel
from cosa_theory.nn.peft.registration import register


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_type_is_a_full_member_of_the_enumeration():
    assert PeftType.COSA is PeftType("COSA") is PeftType["COSA"]
    assert PeftType.COSA == "COSA"
    assert "COSA" in list(PeftType)
    assert isinstance(PeftType.COSA, str)
    assert hash(PeftType.COSA) == hash("COSA")
    assert len({member.value for member in PeftType}) == len(list(PeftType))


def test_registering_again_changes_nothing():
    mappings = (
        PEFT_TYPE_TO_CONFIG_MAPPING,
        PEFT_TYPE_TO_TUNER_MAPPING,
        PEFT_TYPE_TO_PREFIX_MAPPING,
    )
    before = [dict(mapping) for mapping in mappings]
    register(CosaConfig, CosaModel)
    register(CosaConfig, CosaModel)
    assert [dict(mapping) for mapping in mappings] == before
    assert list(PeftType).count("COSA") == 1


def test_peft_finds_the_classes_by_the_type():
    assert type(PeftConfig.from_peft_type(peft_type="COSA")) is CosaConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING["COSA"] is CosaModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING["COSA"] == "cosa_" == CosaModel.prefix


FOREIGN = """
from dataclasses import dataclass
from peft import PeftConfig, PeftType, get_peft_model, PeftModel
from peft.tuners.vera import VeraModel
import peft.utils.peft_types as types
member = str.__new__(PeftType, "COSA")
member._name_ = member._value_ = "COSA"
PeftType._member_names_.append("COSA")
PeftType._member_map_["COSA"] = PeftType._value2member_map_["COSA"] = member
@dataclass
class TheirConfig(PeftConfig):
    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("COSA")
class TheirModel(VeraModel):
    prefix = "cosa_"
theirs = {"config_cls": TheirConfig, "model_cls": TheirModel, "prefix": "cosa_"}
types.register_peft_method(name="cosa", **theirs)
import tempfile, torch, importlib
import cosa_theory.nn.peft as ours
importlib.reload(ours)
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as configs
assert configs["COSA"] is TheirConfig and configs["COSA_THEORY"] is ours.CosaConfig
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(6, 5))
config = ours.CosaConfig(a=2, b=2, target_modules=["0"], init_weights=False)
model = get_peft_model(net, config)
x = torch.ones(1, 6)
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    expected = model(x)
    again = PeftModel.from_pretrained(model.unload(), folder)
    assert torch.allclose(again(x), expected)
print(type(again.base_model).__name__, again.peft_config["default"].peft_type.value)
"""


def test_a_cosa_of_peft_itself_keeps_its_name_and_ours_takes_another():
    assert run(FOREIGN).split() == ["CosaModel", "COSA_THEORY"]


def test_a_reload_of_the_modules_replaces_the_classes():
    reloaded = type("CosaConfig", (CosaConfig,), {"__module__": CosaConfig.__module__})
    try:
        register(reloaded, CosaModel)
        assert PEFT_TYPE_TO_CONFIG_MAPPING["COSA"] is reloaded
        assert list(PeftType).count("COSA") == 1
    finally:
        register(CosaConfig, CosaModel)
    assert PEFT_TYPE_TO_CONFIG_MAPPING["COSA"] is CosaConfig


def test_a_second_method_of_both_names_is_refused(monkeypatch):
    class Other:
        pass

    monkeypatch.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType.COSA, Other)
    monkeypatch.setattr("cosa_theory.nn.peft.registration.SECOND_NAME", "lora")
    with pytest.raises(ImportError, match="already"):
        register(CosaConfig, CosaModel)
