"""An update from its core, and how often that works."""
