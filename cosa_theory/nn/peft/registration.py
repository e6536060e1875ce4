"""How PEFT is told of a method that it does not ship."""

import re
from typing import Any

from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_MIXED_MODEL_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.utils import PeftType, register_peft_method

__all__ = ["METHOD", "PREFIX", "peft_type", "register"]

METHOD = "cosa"
"""Name of the method, in capitals its `PeftType`, as in the code released with the paper."""

SECOND_NAME = "cosa_theory"
"""The name taken where PEFT brings a CoSA of its own: theirs stays what loads its adapters."""

PREFIX = "cosa_"
"""How the names of the adapter's tensors begin."""

_PACKAGE = __name__.rpartition(".")[0]


def method_name() -> str:
    """Return `METHOD`, or `SECOND_NAME` if PEFT has a class of its own for `METHOD`."""
    theirs = PEFT_TYPE_TO_CONFIG_MAPPING.get(METHOD.upper())
    return METHOD if theirs is None or _is_ours(theirs) else SECOND_NAME


def peft_type() -> Any:
    """Return the member of `PeftType` for this method, which is added if it is missing."""
    name = method_name().upper()
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_, member._value_ = name, name
        member.__objclass__ = PeftType
        PeftType._member_names_.append(name)
        PeftType._member_map_[name] = member
        PeftType._value2member_map_[name] = member
    return PeftType.__members__[name]


def register(config_cls: type, model_cls: type) -> None:
    """Make `get_peft_model` and `PeftModel.from_pretrained` know the method.

    Idempotent: registering again, after a reload of the module for instance, replaces the classes.
    """
    member = peft_type()
    known = PEFT_TYPE_TO_CONFIG_MAPPING.get(member)
    if known is not None and not _is_ours(known):
        raise ImportError(
            f"PEFT has the methods {METHOD} and {SECOND_NAME} already, of another make"
        )
    for mapping in (
        PEFT_TYPE_TO_CONFIG_MAPPING,
        PEFT_TYPE_TO_TUNER_MAPPING,
        PEFT_TYPE_TO_MIXED_MODEL_MAPPING,
        PEFT_TYPE_TO_PREFIX_MAPPING,
    ):
        mapping.pop(member, None)
    register_peft_method(
        name=method_name(), config_cls=config_cls, model_cls=model_cls, prefix=PREFIX
    )


def _is_ours(cls: type) -> bool:
    return re.match(rf"{re.escape(_PACKAGE)}(\.|$)", cls.__module__) is not None
