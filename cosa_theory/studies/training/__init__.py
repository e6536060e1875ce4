"""Trainings compared at equal size."""
