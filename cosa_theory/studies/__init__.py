"""One folder per question a user asks: what is computed, judged, shown and drawn."""
