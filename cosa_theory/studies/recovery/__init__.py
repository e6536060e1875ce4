"""An update from its core, and how often that works."""

PRESENTATIONS = {"recover": "views", "experiments": "experiment_views"}
