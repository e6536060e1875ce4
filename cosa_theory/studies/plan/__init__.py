"""What an adapter costs on a model and can express, before anything is trained."""

PRESENTATIONS = {"plan": "views"}
