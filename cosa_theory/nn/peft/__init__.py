"""CoSA as a method of Hugging Face PEFT: importing this module registers it.

The method is `PeftType.COSA`. If a later PEFT brings its own method of that name, it keeps the
name, and this one is registered as `PeftType.COSA_THEORY`: what `CosaConfig` builds, saves and
loads is this method in either case.

Examples
--------
>>> from peft import get_peft_model
>>> from cosa_theory.nn.peft import CosaConfig
>>> model = get_peft_model(model, CosaConfig(a=256, b=256, target_modules="all-linear"))
"""

from cosa_theory.nn.peft.config import CosaConfig
from cosa_theory.nn.peft.layer import CosaLayer, Linear
from cosa_theory.nn.peft.model import CosaModel
from cosa_theory.nn.peft.preparation import prepare_cosa
from cosa_theory.nn.peft.registration import register

__all__ = ["CosaConfig", "CosaLayer", "CosaModel", "Linear", "prepare_cosa"]

register(CosaConfig, CosaModel)
