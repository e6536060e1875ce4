"""Which linear layers of a model to adapt, and putting other modules in their places.

Names are matched as Hugging Face PEFT matches them: a list of names or of their ends after a dot,
a regular expression for the whole name, or "all-linear".
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from cosa_theory.deltas.matching import expression, first_few
from cosa_theory.ground.checks import refuse
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.wrappers import named_places

__all__ = [
    "call_encoder_layers",
    "closest",
    "linear_layers",
    "linear_problem",
    "minimal_targets",
    "modules_by_ending",
    "replace_modules",
]

ALL_LINEAR = "all-linear"
_HEADS = ("score", "classifier")  # of transformers' models for sequence classification


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
        transformers model, the `score` or `classifier` of one that has none) and those that
        `nn.MultiheadAttention` does not call.
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
    if _is_all_linear(target_modules):
        skipped = _output_heads(model)
        found = [
            name
            for name, module in places.items()
            if isinstance(module, nn.Linear)
            and module not in skipped
            and not _within_attention(name, places)
        ]
    else:
        found = [name for name in places if wanted(name)]
        problems = _unmatched(target_modules, places)
        if problems:
            raise InputError(*problems)
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
    return _all_linear_or_error(kept, places)


def _is_all_linear(target_modules: Any) -> bool:
    return isinstance(target_modules, str) and target_modules.lower() == ALL_LINEAR


def _matcher(setting: str, wanted: Any) -> Callable[[str], bool]:
    """Return the test of a name: PEFT's rule for lists and for regular expressions."""
    if isinstance(wanted, str):
        pattern = expression(setting, wanted)
        return lambda name: pattern.fullmatch(name) is not None
    names = _names(setting, wanted)
    return lambda name: name in names or any(name.endswith(f".{end}") for end in names)


def _names(setting: str, wanted: Any) -> list[str]:
    usable = isinstance(wanted, Iterable) and not isinstance(wanted, (str, bytes, Mapping))
    names = list(wanted) if usable else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise refuse(setting, wanted, "a list of names or their ends, such as ['q_proj', 'v_proj']")
    return names


def _unmatched(target_modules: str | Sequence[str], places: Mapping[str, nn.Module]) -> list[str]:
    """Say which entries match nothing at all, with the names that come closest."""
    if isinstance(target_modules, str):
        if any(re.fullmatch(target_modules, name) for name in places):
            return []
        sentence = f"target_modules is {target_modules!r}, which matches no module's whole name"
        if any(name.endswith(f".{target_modules}") for name in places):
            return [f"{sentence}; for all names that end so, give the list [{target_modules!r}]"]
        return [sentence + _endings(places)]
    linears = [name for name, module in places.items() if isinstance(module, nn.Linear)]
    return [
        f"target_modules has {entry!r}, which is no module of the model; {closest(entry, linears)}"
        for entry in target_modules
        if not any(name == entry or name.endswith(f".{entry}") for name in places)
    ]


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


def _output_heads(model: nn.Module) -> list[nn.Module]:
    """Return the head that "all-linear" leaves out, by the conventions of transformers."""
    get_output = getattr(model, "get_output_embeddings", None)
    if not callable(get_output):
        return []
    output = get_output()
    if output is not None:
        return [output]
    heads = [getattr(model, name) for name in _HEADS if hasattr(model, name)]
    return [layer for head in heads[:1] for layer in head.modules()]


def _within_attention(name: str, places: Mapping[str, nn.Module]) -> bool:
    """Whether torch's attention uses the layer's weight without calling the layer."""
    return isinstance(places.get(name.rpartition(".")[0]), nn.MultiheadAttention)


def linear_problem(module: nn.Module, name: str, places: Mapping[str, nn.Module]) -> str | None:
    """Say why the module of a name cannot be adapted, or return None."""
    if not isinstance(module, nn.Linear):
        hint = "; the PEFT method adapts it" if type(module).__name__ == "Conv1D" else ""
        return f"of type {type(module).__name__}, and only nn.Linear is adapted{hint}"
    weight = module._parameters.get("weight")
    if weight is None:
        return "a linear layer whose weight is computed (parametrised), so nothing can be merged"
    if not weight.is_floating_point() or weight.shape != (module.out_features, module.in_features):
        return "a quantised linear layer, which only the PEFT method adapts"
    if _within_attention(name, places):
        return "used by nn.MultiheadAttention without being called, so nothing would change"
    return None


def _all_linear_or_error(
    kept: Mapping[str, nn.Module], places: Mapping[str, nn.Module]
) -> dict[str, nn.Linear]:
    """Return the layers, each once, or refuse what cannot be adapted, a sentence for a reason."""
    reasons: dict[str, list[str]] = {}
    for name, module in kept.items():
        reason = linear_problem(module, name, places)
        if reason is not None:
            reasons.setdefault(reason, []).append(name)
    if reasons:
        raise InputError(
            *(
                f"target_modules matches {first_few(names, 3)}, {reason}; name others, or leave "
                f"{'it' if len(names) == 1 else 'them'} out with exclude_modules"
                for reason, names in reasons.items()
            )
        )
    first: dict[nn.Linear, str] = {}
    for name, module in kept.items():
        if isinstance(module, nn.Linear):
            first.setdefault(module, name)
    return {name: module for module, name in first.items()}


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


def minimal_targets(names: Sequence[str], places: Iterable[str]) -> list[str] | str:
    """Return a short `target_modules` that matches these names and nothing else in `places`.

    Last parts of names where every module that ends so is meant, whole names elsewhere; a regular
    expression if a whole name is the end of another module's.
    """
    meant, others = set(names), [name for name in places if name not in set(names)]
    short = []
    for name in names:
        end = name.rpartition(".")[2]
        alone = not any(other == end or other.endswith(f".{end}") for other in others)
        short.append(end if alone else name)
    short = list(dict.fromkeys(short))
    matches = _matcher("target_modules", short)
    if not any(matches(other) for other in others):
        return short
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
