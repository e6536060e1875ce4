"""Charts of a page drawn without a browser."""

import json

from cosa_theory.page.explorer import CONFIG, script_json


def drawn(explorer):
    """Return every chart as SVG, drawn from what the page would hold."""
    import vl_convert

    held = json.loads(script_json(explorer.as_json()))
    return [
        vl_convert.vegalite_to_svg(
            {**spec, "datasets": held["tables"], "config": CONFIG, "width": 400}
        )
        for spec in held["charts"]
    ]
