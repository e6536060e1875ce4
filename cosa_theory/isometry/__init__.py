"""Restricted isometry and Johnson-Lindenstrauss properties, measured with certificates."""
