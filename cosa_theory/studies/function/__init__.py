"""What an approximation of ΔW does to the model: function recovered, beside energy and bits."""

PRESENTATIONS = {"function": "views"}
