"""How many dimensions points need, and what each ensemble does to vectors."""

PRESENTATIONS = {"jl": "views"}
