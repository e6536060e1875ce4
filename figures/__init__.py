"""One module per figure: reads stored results, writes a PDF and a PNG."""

from cosa_theory.page.style import load_matplotlib

load_matplotlib()  # before a figure imports a part of it
