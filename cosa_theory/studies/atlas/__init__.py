"""What each family of updates can express of a real one, per parameter and per bit."""

PRESENTATIONS = {"atlas": "views"}
