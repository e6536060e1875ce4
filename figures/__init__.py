"""One module per figure: reads stored results, writes a PDF and a PNG."""
