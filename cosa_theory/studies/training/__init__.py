"""Trainings compared at equal size."""

PRESENTATIONS = {"finetune": "views"}
