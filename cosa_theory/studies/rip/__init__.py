"""Restricted isometry constants of a layer or a matrix, in brackets."""

PRESENTATIONS = {"rip": "views"}
