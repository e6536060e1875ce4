"""Results as a reader meets them: documents, tables of text, figures, one page."""
