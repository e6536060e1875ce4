"""The first pattern of a file that a layer's name ends with counts, as if each were tried."""

import re
import time

from hypothesis import example, given
from hypothesis import strategies as st

from cosa_theory.ground.expressions import by_pattern

part = st.sampled_from(["q", "v", "qv", "0", "1", "", "q-v", "qxv"])
names = st.lists(part, min_size=1, max_size=4).map(".".join)
expressions = st.sampled_from([r"[qv]", r"q|v", r"\d\.q", r"0\.v", ".", "q.*", "", ".*", "q$"])
patterns = st.lists(names | expressions, max_size=6, unique=True)


def one_by_one(values, name, default):
    """The rule itself, as PEFT has it."""
    for pattern, value in values.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


@given(patterns, names)
@example(["0.q", "v"], "1.0xq")
@example(["q.v", "qxv"], "0.qxv")
@example(["v", r"\w"], "0.v\n")
def test_patterns_are_looked_up_as_if_they_were_tried_one_by_one(listed, name):
    values = {pattern: place for place, pattern in enumerate(listed)}
    assert by_pattern(values, name, None) == one_by_one(values, name, None)


def test_many_names_and_layers_do_not_multiply():
    def seconds(count):
        values = {f"layers.{i}.q": i for i in range(count)}
        started = time.process_time()
        found = [by_pattern(values, f"model.layers.{i}.q", None) for i in range(2000)]
        took = time.process_time() - started
        assert found == [i if i < count else None for i in range(2000)]
        return took

    def least(count):
        return min(seconds(count) for _ in range(3))

    # Twenty times the names; where each is tried for each layer, twenty times as long.
    assert least(400) < 8 * least(20)
