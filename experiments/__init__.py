"""Experiments: each module measures one thing; `python -m experiments.NAME --help` says what."""
