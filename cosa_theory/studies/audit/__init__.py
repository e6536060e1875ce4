"""Which of the theory's assumptions hold on real updates."""

PRESENTATIONS = {"audit": "views"}
