"""What projections that know a layer's inputs hold of its update, beside uninformed ones."""
