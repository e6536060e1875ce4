"""Names are paired as they belong together, or refused: never with another's."""

import time
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cosa_theory.deltas.renaming import match_names
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import TensorInfo

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
MATRIX = TensorInfo("float32", (4, 3))  # all of one shape: only names tell them apart
INNER = ("0.query.weight", "0.value.weight", "1.query.weight", "12.mlp.up.weight", "norm.weight")

words = st.sampled_from("abcd")


def match(truth):
    """Match the names of base with those of tuned, in another order."""
    tuned = dict.fromkeys(sorted(truth.values(), key=lambda name: name[::-1]), MATRIX)
    return match_names(dict.fromkeys(truth, MATRIX), tuned)


def paired(renamings, inner):
    """Return the true pairs of names for prefixes in base and tuned."""
    pairs = [(old + name, new + name) for old, new in renamings for name in inner]
    olds, news = zip(*pairs, strict=True)
    assume(len(set(olds)) == len(set(news)) == len(pairs))  # two models without doubled names
    truth = dict(pairs)
    # A name that is in both models is taken for one tensor, whatever was renamed to what.
    assume(all(truth[name] == name for name in set(olds) & set(news)))
    return truth


@st.composite
def renaming(draw, alphabet=words):
    """A prefix and what it becomes: parts added or removed, in front or in the middle, or none."""
    old = draw(st.lists(alphabet, max_size=3))
    place = draw(st.integers(0, len(old)))
    added = draw(st.lists(alphabet, max_size=3))
    new = [*old[:place], *added, *old[place:]]
    pair = tuple("".join(f"{part}." for part in parts) for parts in (old, new))
    return pair if draw(st.booleans()) else pair[::-1]


def wrapped(name, random):
    """Return the name as wrappers make it, at any of its parts."""
    parts = []
    for part in name.split("."):
        parts += [*random.choices(WRAPPERS, k=random.choice((0, 0, 1, 2))), part]
    return ".".join(parts)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_names_that_wrappers_changed_are_all_found(seed):
    random = Random(seed)
    names = [f"{part}.{name}" for part in ("model.layers", "visual.blocks") for name in INNER]
    truth = {wrapped(name, random): wrapped(name, random) for name in names}
    assert match(truth).pairs == truth


@settings(max_examples=300, deadline=None)
@given(st.lists(renaming(), min_size=1, max_size=3), st.sets(st.sampled_from(INNER), min_size=1))
def test_renamed_groups_are_found_exactly_or_refused_as_ambiguous(renamings, inner):
    truth = paired(renamings, sorted(inner))
    try:
        found = match(truth)
    except InputError as error:
        assert "ambiguous prefix" in str(error)  # noqa: PT017
        assert len(renamings) > 1
    else:
        assert found.pairs == truth
        assert found.only_in_base == found.only_in_tuned == ()


@settings(max_examples=150, deadline=None)
@given(
    renaming(st.sampled_from(("model", "core"))),
    renaming(st.sampled_from(("visual", "tower"))),
    renaming(st.sampled_from(("audio", "ear"))),
)
def test_groups_that_hold_other_layers_are_all_found(text, vision, audio):
    groups = zip((text, vision, audio), ("layers.", "blocks.", "stages."), strict=True)
    truth = {}
    for group, stack in groups:
        truth |= paired([group], [stack + name for name in INNER])
    assert match(truth).pairs == truth


@given(st.lists(words, min_size=2, max_size=2, unique=True), st.sampled_from(INNER))
def test_two_candidates_for_one_matrix_are_refused_whichever_side_has_them(heads, name):
    two = {f"{head}.{name}": MATRIX for head in heads}
    for sides in (({name: MATRIX}, two), (two, {name: MATRIX})):
        with pytest.raises(InputError, match="ambiguous prefix"):
            match_names(*sides)


def test_prefixes_are_told_with_those_of_most_tensors_first():
    pairs = {f"model.layers.{i}.weight": f"model.text.layers.{i}.weight" for i in range(4)}
    pairs |= {"visual.blocks.0.weight": "model.visual.blocks.0.weight"}
    assert match(pairs).renamed == (("model.", "model.text."), ("", "model."))


def seconds(names, rename):
    """Return the processor time that matching takes."""
    truth = {name: rename(name) for name in names}
    times = []
    for _ in range(2):
        started = time.process_time()
        found = match(truth)
        times.append(time.process_time() - started)
        assert found.pairs == truth
    return min(times)


def spelt(number):
    """Return a number in letters, so that the prefix does not end there."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


@pytest.mark.parametrize(
    "rename",
    [
        pytest.param(lambda name: name, id="same"),
        pytest.param(lambda name: "outer." + name, id="in front"),
        pytest.param(lambda name: name.replace("model.", "model.text.", 1), id="in the middle"),
        pytest.param(lambda name: "_orig_mod.module." + name, id="wrapped"),
    ],
)
def test_the_time_of_matching_grows_with_the_number_of_names(rename):
    few, many = (
        [f"model.{spelt(i)}.{spelt(i // 7)}.weight" for i in range(count)] for count in (750, 6000)
    )
    # Eight times the names take eight times as long, and 64 times where each is held against each.
    assert seconds(many, rename) < 24 * seconds(few, rename)
