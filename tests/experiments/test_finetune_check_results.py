"""What the end-to-end check found: leads with intervals over seeds and items, best rates, words."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from experiments.finetune_check_results import best_rates, summarise, verdict
from tests.experiments.finetune_results import results


def test_the_summary_pairs_equal_seeds_and_has_t_intervals():
    values = {"lora": [0.90, 0.92, 0.97], "cosa": [0.89, 0.90, 0.97], "full": [0.95]}
    rows = summarise(results(values)).set_index("method")
    differences = np.array([-0.01, -0.02, 0.0])
    half = t.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3)
    found = rows.loc["cosa", ["advantage", "advantage_low", "advantage_high"]].astype(float)
    assert found.tolist() == pytest.approx([-0.01, -0.01 - half, -0.01 + half], rel=0.01)
    assert rows.loc["cosa", "parameter_ratio"] == pytest.approx(0.99)
    assert rows.loc["full", ["pairs", "value_low", "value_high"]].tolist() == [1, 0.85, 1.05]
    assert rows.loc["full", "advantage"] == pytest.approx(0.05), "on the seed that both have"
    assert np.isnan(rows.loc["full", "advantage_low"])
    assert np.isnan(rows.loc["lora", "advantage"])


def scored(lora, cosa, metric="accuracy"):
    """Return a table of results of the two methods, from outcomes of shape (seeds, items)."""
    outcomes = np.concatenate([lora, cosa])
    sizes = [list(part.mean(axis=1)) for part in (lora, cosa)]
    table = results(dict(zip(("lora", "cosa"), sizes, strict=True)), metric=metric)
    return table.assign(
        item_sums=list(outcomes), item_weights=[np.ones(outcomes.shape[1])] * len(table)
    )


def lead(table):
    row = summarise(table).set_index("method").loc["cosa"]
    return row[["advantage_low", "advantage", "advantage_high"]].astype(float).to_numpy()


def test_where_items_vary_and_seeds_do_not_the_interval_is_that_over_items():
    generator = np.random.default_rng(0)
    lora, cosa = (np.tile(generator.random(500) < share, (3, 1)) * 1.0 for share in (0.9, 0.8))
    low, mean, high = lead(scored(lora, cosa))
    half = 1.96 * (cosa - lora)[0].std() / np.sqrt(500)
    assert (mean - low, high - mean) == pytest.approx((half, half), rel=0.08)


def test_only_what_differs_between_the_methods_on_an_item_widens_the_interval():
    generator = np.random.default_rng(1)
    hard = generator.exponential(3.0, 300)
    lora, cosa = (hard + generator.normal(0, 0.01, (2, 300)) for _ in range(2))
    low, _, high = lead(scored(lora, cosa, "loss"))
    assert high - low < 0.02
    low, _, high = lead(scored(lora, cosa[:, ::-1], "loss"))
    assert high - low > 0.5, "other items: nothing is paired"


def test_the_interval_covers_the_truth_over_new_seeds_and_new_items():
    generator = np.random.default_rng(2)
    covered, trials = 0, 150
    for _ in range(trials):
        of_items, of_seeds = generator.normal(0, 2, 60), generator.normal(0, 0.2, (3, 1))
        cosa = of_items + of_seeds + generator.normal(0, 0.3, (3, 60))
        low, _, high = lead(scored(np.zeros((3, 60)), cosa))
        covered += low <= 0 <= high
    assert covered / trials > 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


def test_a_seed_that_lora_was_not_trained_with_is_in_the_mean_but_not_in_the_lead():
    rows = summarise(results({"lora": [0.90, 0.92], "cosa": [0.89, 0.90, 0.10]}))
    row = rows.set_index("method").loc["cosa"]
    assert row[["seeds", "pairs"]].tolist() == [3, 2]
    assert row["value"] == pytest.approx(0.63)
    assert row["advantage"] == pytest.approx(-0.015)


def test_a_lower_loss_is_an_advantage():
    rows = summarise(results({"lora": [2.0, 2.2], "cosa": [1.9, 2.0]}, "decoder", "loss"))
    assert rows.set_index("method").loc["cosa", "advantage"] == pytest.approx(0.15)


def test_trainings_given_up_are_left_out_of_the_summary():
    table = results({"lora": [0.9, 0.9], "cosa": [0.8, 0.1]})
    table.loc[3, "status"] = "timed out"
    assert summarise(table).set_index("method").loc["cosa", "value"] == 0.8


def test_the_verdict_names_the_best_first_with_its_seeds():
    table = pd.concat(
        [
            results({"lora": [0.90], "cosa": [0.92]}),
            results({"lora": [1.5], "cosa": [1.25]}, "decoder", "loss", before=2.84),
        ]
    )
    assert verdict(table) == (
        "With as many trainable parameters as LoRA of rank 8 has in every layer, best first; "
        "encoder on Reuters R8, test accuracy: CoSA 92.0 % (1 seed), LoRA 90.0 % (1 seed); "
        "language model on library functions, held-out loss in nats a token (before training "
        "2.840): CoSA 1.250 (1 seed), LoRA 1.500 (1 seed)."
    )


def test_a_grid_whose_trainings_were_all_given_up_has_no_best_rate():
    grid = pd.DataFrame({"model": ["encoder"], "method": ["lora"], "status": ["timed out"]})
    assert best_rates(grid).empty


def test_the_best_rate_is_that_of_the_best_value_and_an_end_of_the_grid_is_told():
    grid = pd.DataFrame(
        [
            ("encoder", "lora", 1e-2, "accuracy", 0.9),
            ("encoder", "lora", 1e-3, "accuracy", 0.9),
            ("encoder", "lora", 1e-4, "accuracy", 0.5),
            ("decoder", "cosa", 1e-3, "loss", 2.0),
            ("decoder", "cosa", 1e-2, "loss", 1.0),
            ("decoder", "cosa", 1e-1, "loss", np.nan),
        ],
        columns=["model", "method", "learning_rate", "metric", "value"],
    )
    best = best_rates(grid)
    assert best["learning_rate"].tolist() == [1e-3, 1e-2]
    assert best["at_edge"].tolist() == [False, True]
