"""A CoSA adapter as an ordinary LoRA adapter."""
