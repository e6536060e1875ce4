"""The directions of what linear layers are fed."""
