"""The figure of the study: an interval for each comparison, a point for each arm."""

import pandas as pd

from experiments.subspace.arms import ARMS
from experiments.subspace.study import read_study
from figures.command import draw_table
from figures.subspace import DRAWING


def tables():
    compared = pd.DataFrame(
        [
            {
                "task": task,
                "arm": one.arm,
                "against": one.against,
                "difference": 0.01 * place - 0.05,
                "low": 0.01 * place - 0.08,
                "high": 0.01 * place - 0.02,
                "outcome": ("better", "undecided", "worse")[place % 3],
            }
            for task in ("r8", "functions")
            for place, one in enumerate(read_study().comparisons)
        ]
    )
    arms = pd.DataFrame(
        [
            {"task": "r8", "arm": name, "subspace": one.subspace, "loss": 0.1 + 0.01 * place}
            for place, (name, one) in enumerate(ARMS.items())
        ]
    )
    measured = arms[["task", "arm"]].assign(
        **dict.fromkeys(("energy", "weighted", "function", "gradients"), arms["loss"] ** 2)
    )
    return {"subspace_compared": compared, "subspace_arms": arms, "subspace_measured": measured}


def test_each_comparison_has_an_interval_and_each_arm_a_point():
    drawn = tables()
    axes = DRAWING.draw(drawn).axes
    assert len(axes) == 2 + 4
    for ax in axes[:2]:
        assert len(ax.get_yticks()) == len(read_study().comparisons)
    for ax in axes[2:]:
        points = sum(len(line.get_xdata()) for line in ax.lines)
        assert points == len(ARMS) - 1  # all but full fine-tuning
    assert not DRAWING.drawable({"subspace_compared": pd.DataFrame({"task": ["other"]})})


def test_the_figure_is_drawn_from_stored_tables_with_or_without_those_beside(tmp_path):
    drawn = tables()
    for kept in ((), ("subspace_arms", "subspace_measured")):
        for name in ("subspace_compared", *kept):
            drawn[name].to_parquet(tmp_path / f"{name}.parquet")
        arguments = [str(tmp_path), "--out", str(tmp_path / "out")]
        assert draw_table("subspace", DRAWING, "subspace_compared", arguments, kept) == 0
        assert (tmp_path / "out" / "subspace.png").stat().st_size > 10_000
