"""What updates look like, and what low rank and CoSA can express of them."""

PRESENTATIONS = {"spectrum": "views"}
