"""Which linear layers of a model to adapt, and putting other modules in their places.

Names are matched as Hugging Face PEFT matches them: a list of names or of their ends after a dot,
a regular expression for the whole name, or "all-linear".
"""

import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.checks import refuse
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.expressions import Expression, by_pattern
from cosa_theory.nn.adaptable import layer_obstacles
from cosa_theory.nn.wrappers import named_places

__all__ = [
    "call_encoder_layers",
    "closest",
    "is_all_linear",
    "layer_problems",
    "linear_layers",
    "minimal_targets",
    "modules_by_ending",
    "output_heads",
    "refuse_layers",
    "refuse_unmatched",
    "replace_modules",
    "stacked_experts",
    "warn_of_idle_patterns",
]

ALL_LINEAR = "all-linear"
_HEADS = ("score", "classifier", "lm_head")  # of models without output embeddings


def linear_layers(
    model: nn.Module,
    target_modules: str | Sequence[str],
    *,
    exclude_modules: str | Sequence[str] | None = None,
    modules_to_save: Sequence[str] = (),
) -> dict[str, nn.Linear]:
    """Return the linear layers that `target_modules` names.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    target_modules : str or sequence of str
        Names, or ends of names after a dot; a regular expression for the whole name; or
        "all-linear": every linear layer but the output head (the output embeddings of a
        transformers model, the `score`, `classifier` or `lm_head` of one that has none) and those
        that do not compute W x + b from a weight of their own at each call, see
        `cosa_theory.nn.adaptable.layer_obstacles`.
    exclude_modules : str or sequence of str, optional
        Names that are not meant, in the same way.
    modules_to_save : sequence of str
        Names of modules that are trained whole: nothing within them is adapted.

    Returns
    -------
    dict of str to nn.Linear
        In the order of the model; a layer used in several places once, by its first matching name.

    Raises
    ------
    InputError
        If a name matches nothing (the closest are named), or matches what cannot be adapted.

    Warns
    -----
    UserWarning
        If names mean experts too that are stored as one parameter, and no layers.
    """
    if isinstance(model, nn.Linear):
        raise InputError(
            "the model is itself a linear layer, which cannot be replaced in place; adapt it with "
            "CosaLinear(model, a, b)"
        )
    places = named_places(model)
    wanted = _matcher("target_modules", target_modules)
    unwanted = _matcher("exclude_modules", exclude_modules) if exclude_modules else None
    whole = [re.compile(rf"(^|.*\.){re.escape(name)}($|\..*)") for name in modules_to_save]
    if is_all_linear(target_modules):
        heads = output_heads(model)
        linears = {
            name: module
            for name, module in places.items()
            if isinstance(module, nn.Linear) and module not in heads
        }
        obstacles = _problems(model, linears)[1]
        found = [name for name in linears if name not in obstacles]
    else:
        refuse_unmatched(target_modules, model)
        found = [name for name in places if wanted(name)]
    kept = {
        name: places[name]
        for name in found
        if not (unwanted and unwanted(name)) and not any(one.match(name) for one in whole)
    }
    if not kept:
        raise InputError(
            f"target_modules is {target_modules!r}, which leaves no layer to adapt"
            + ("; loosen exclude_modules or modules_to_save" if found else _endings(places))
        )
    refuse_layers(layer_problems(model, kept))
    first: dict[nn.Linear, str] = {}
    for name, module in kept.items():
        if isinstance(module, nn.Linear):
            first.setdefault(module, name)
    return {name: module for module, name in first.items()}


def is_all_linear(target_modules: Any) -> bool:
    """Return whether `target_modules` asks for every linear layer."""
    return isinstance(target_modules, str) and target_modules.lower() == ALL_LINEAR


def _matcher(setting: str, wanted: Any) -> Callable[[str], bool]:
    """Return the test of a name: PEFT's rule for lists and for regular expressions."""
    if isinstance(wanted, str):
        pattern = Expression(setting, wanted)
        return lambda name: pattern.fullmatch(name) is not None
    names = set(_names(setting, wanted))
    return lambda name: not names.isdisjoint(_ends(name))


def _ends(name: str) -> Iterator[str]:
    """Yield a name, and its ends after each dot."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _names(setting: str, wanted: Any) -> list[str]:
    usable = isinstance(wanted, Iterable) and not isinstance(wanted, (str, bytes, Mapping))
    names = list(wanted) if usable else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise refuse(setting, wanted, "a list of names or their ends, such as ['q_proj', 'v_proj']")
    return names


def refuse_unmatched(target_modules: str | Sequence[str], model: nn.Module) -> None:
    """Raise InputError for entries that match nothing at all, with the names that come closest.

    Warn of those that match layers, and mean experts too that are no layers.
    """
    places = named_places(model)
    experts = stacked_experts(model)
    if isinstance(target_modules, str):
        pattern = Expression("target_modules", target_modules)
        if any(pattern.fullmatch(name) for name in places):
            return
        sentence = f"target_modules is {target_modules!r}, which matches no module's whole name"
        if any(name.endswith(f".{target_modules}") for name in places):
            remedy = f"; for all names that end so, give the list [{target_modules!r}]"
        elif any(pattern.fullmatch(name) for name in experts):
            remedy = _no_layers(experts)
        else:
            remedy = _endings(places)
        raise InputError(sentence + remedy)
    known = {end for name in places for end in _ends(name)}
    linears = [name for name, module in places.items() if isinstance(module, nn.Linear)]
    names = _names("target_modules", target_modules)
    missing = [
        f"target_modules has {entry!r}, which is no module of the model"
        + (_no_layers(experts) if _meant(entry, experts) else f"; {closest(entry, linears)}")
        for entry in names
        if entry not in known
    ]
    if missing:
        raise InputError(*missing)
    meant = [entry for entry in names if _meant(entry, experts)]
    if meant:
        warnings.warn(
            f"target_modules has {first_few(meant, 3)}{_no_layers(experts)}: only the layers of "
            "these names are",
            stacklevel=3,
        )


def stacked_experts(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that hold the experts of a mixture as one tensor, by name."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and "expert" in name
    }


def _no_layers(experts: Mapping[str, Any]) -> str:
    return (
        f"; the experts of this model are 3-D parameters such as {next(iter(experts))}, no layers, "
        "and are not adapted"
    )


def _meant(entry: str, experts: Iterable[str]) -> bool:
    """Tell whether a name stands for a tensor of experts, or for a part of it: up in gate_up."""
    end = entry.rpartition(".")[2]
    parts = {name.rpartition(".")[2] for name in experts}
    part = end.removesuffix("_proj") if end.endswith("_proj") else end
    return end in parts or any(part in name.split("_") for name in parts)


def closest(name: str, candidates: Sequence[str]) -> str:
    """Return "the closest are …": the names, or ends of names, most like a name."""
    ends = _last_parts(candidates)
    pool = [*ends, *candidates] if "." not in name else list(candidates)
    by_lower = {one.lower(): one for one in reversed(pool)}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    if near:
        verb = "is" if len(near) == 1 else "are"
        return f"the closest {verb} {', '.join(by_lower[one] for one in near)}"
    return f"the linear layers end in {first_few(list(ends))}" if ends else "it has no linear layer"


def _endings(places: Mapping[str, nn.Module]) -> str:
    ends = _last_parts(name for name, one in places.items() if isinstance(one, nn.Linear))
    return (
        f"; its linear layers end in {first_few(list(ends))}" if ends else "; it has no nn.Linear"
    )


def _last_parts(names: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(name.rpartition(".")[2] for name in names)


def output_heads(model: nn.Module) -> list[nn.Module]:
    """Return the head that "all-linear" leaves out, by the conventions of transformers."""
    get_output = getattr(model, "get_output_embeddings", None)
    if not callable(get_output):
        return []
    output = get_output()
    if output is not None:
        return [output]
    heads = [getattr(model, name) for name in _HEADS if hasattr(model, name)]
    return [layer for head in heads[:1] for layer in head.modules()]


def layer_problems(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """Say why some modules of a model cannot be adapted as plain layers, by name."""
    by_type, obstacles = _problems(model, layers)
    return by_type | obstacles


def _problems(
    model: nn.Module, layers: Mapping[str, nn.Module]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the problems that lie in the type of a module or its weight, and the obstacles."""
    by_type = {
        name: reason for name, one in layers.items() if (reason := _type_problem(one)) is not None
    }
    rest = {name: module for name, module in layers.items() if name not in by_type}
    return by_type, layer_obstacles(model, rest)


def _type_problem(module: nn.Module) -> str | None:
    if not isinstance(module, nn.Linear):
        hint = "; the PEFT method adapts it" if type(module).__name__ == "Conv1D" else ""
        return f"of type {type(module).__name__}, and only nn.Linear is adapted{hint}"
    weight = module._parameters.get("weight")
    size = (module.out_features, module.in_features)
    if weight is not None and (not weight.is_floating_point() or weight.shape != size):
        return "a quantised linear layer, which only the PEFT method adapts"
    return None


def refuse_layers(problems: Mapping[str, str]) -> None:
    """Raise InputError for layers that cannot be adapted, a sentence for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in problems.items():
        reasons.setdefault(reason, []).append(name)
    if reasons:
        raise InputError(
            *(
                f"target_modules matches {first_few(names, 3)}, {reason}; name others, or leave "
                f"{'it' if len(names) == 1 else 'them'} out with exclude_modules"
                for reason, names in reasons.items()
            )
        )


def modules_by_ending(
    model: nn.Module, names: Sequence[str] | None, setting: str = "modules_to_save"
) -> tuple[str, ...]:
    """Return the full names of the modules whose name, or its end after a dot, is listed.

    Raises InputError if a name matches no module; `setting` is what it calls the list.
    """
    if names is None:
        return ()
    places = named_places(model)
    listed = _names(setting, names)
    missing = [
        f"{setting} has {entry!r}, which is no module of the model; {closest(entry, list(places))}"
        for entry in listed
        if not any(name == entry or name.endswith(f".{entry}") for name in places)
    ]
    if missing:
        raise InputError(*missing)
    matches = _matcher(setting, listed)
    first = {module: name for name, module in reversed(places.items()) if matches(name)}
    return tuple(name for name, module in places.items() if first.get(module) == name)


def warn_of_idle_patterns(setting: str, patterns: Iterable[str], names: Iterable[str]) -> None:
    """Warn of patterns for layers that are not adapted, or do not exist."""
    idle = [
        pattern
        for pattern in patterns
        if not any(by_pattern({pattern: True}, name, False) for name in names)
    ]
    if idle:
        warnings.warn(f"{setting} has {idle}, which match no targeted module", stacklevel=4)


def minimal_targets(names: Sequence[str], places: Iterable[str]) -> list[str] | str:
    """Return a short `target_modules` that matches these names and nothing else in `places`.

    Last parts of names where every module that ends so is meant, whole names elsewhere; a regular
    expression if a whole name is the end of another module's.
    """
    meant = set(names)
    others = {end for name in places if name not in meant for end in _ends(name)}
    last = [name.rpartition(".")[2] for name in names]
    short = [end if end not in others else name for name, end in zip(names, last, strict=True)]
    if others.isdisjoint(short):
        return list(dict.fromkeys(short))
    return "|".join(re.escape(name) for name in sorted(meant))


def replace_modules(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Put other modules in the places of some, wherever in the tree these are used."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in replacements:
                setattr(parent, name, replacements[child])


def call_encoder_layers(model: nn.Module, adapted: type[nn.Module]) -> None:
    """Switch off the fast path by which torch's own encoder reads the weights of adapted layers.

    In inference it would compute with the base weights, and never call the `adapted` layers.
    """
    for module in model.modules():
        inside = any(isinstance(child, adapted) for child in module.children())
        if inside and isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder) and any(
            getattr(layer, "activation_relu_or_gelu", 0) == 0 for layer in encoder.layers
        ):
            encoder.use_nested_tensor = False
