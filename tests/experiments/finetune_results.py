"""Tables of results of the end-to-end check, for tests of what reads them."""

import pandas as pd


def results(values, model="encoder", metric="accuracy", before=0.2):
    """Return rows of a table of results: {method: values by seed}; all items have one outcome."""
    costs = dict.fromkeys(
        ("seconds_per_step", "saved_bytes", "state_bytes", "frozen_bytes", "adapter_bytes"), 1e6
    )
    return pd.DataFrame(
        [
            {
                "model": model,
                "method": method,
                "seed": seed,
                "rank": 8,
                "learning_rate": 1e-3,
                "metric": metric,
                "before": before,
                "value": value,
                "low": value - 0.1,
                "high": value + 0.1,
                "adapter_parameters": 100 if method == "lora" else 99,
                "trainable_parameters": 110,
                "scored": 400,
                "item_sums": [100 * value] * 4,
                "item_weights": [100.0] * 4,
                "train_loss": 0.25,
                "steps": 40,
                "seconds": 7.0,
                "status": "done",
                **costs,
            }
            for method, of_seeds in values.items()
            for seed, value in enumerate(of_seeds)
        ]
    )
