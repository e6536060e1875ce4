"""Files damaged at random, knowing their structure, and what must hold when they are read."""

import hashlib
import io
import json

import pyarrow.parquet as pq

from cosa_theory.ground.errors import MOST_CHARACTERS, MOST_PROBLEMS, InputError

ODD = ["null", "true", "-1", "0", "1e308", "NaN", '"x"', "[1]", "{}", "1" * 5000, "1" * 400,
       "[" * 3000 + "]" * 3000, '"\\ud800"', '{"(": 1}', '{"": -1}', "1000000000", "[[]]",
       '"\\u0000"', '"' + "x" * 5000 + '"', "-0.0", "[null]", '["..", "/"]', '"Infinity"',
       '{"__float__": "Infinity"}', "9223372036854775808"]  # fmt: skip
PIECES = [b"{", b"-" * 300, b"\x00", b"(", b"True", b"9" * 30, b"\xff\xfe", b'"', b"[[", b"\n"]


def mutated(value, draw):
    """Return a JSON text of the value in which one field, somewhere, is another."""
    whole, places = json.loads(json.dumps(value)), []
    stack = [whole]
    while stack:
        one = stack.pop()
        for key in one if isinstance(one, dict) else range(len(one)):
            places.append((one, key))
            if isinstance(one[key], dict | list):
                stack.append(one[key])
    if not places:
        return draw.choice(ODD).encode()
    holder, key = draw.choice(places)
    act = draw.randrange(8)
    if act == 0 and isinstance(holder, dict):
        holder[draw.choice(["", "x" * 3000, "a\x1b\u202e", "*", str(key) + "."])] = holder.pop(key)
    elif act == 1:
        del holder[key]
    else:
        holder[key] = "MUTATED"
    return json.dumps(whole).replace('"MUTATED"', draw.choice(ODD), 1).encode()


def damaged(raw, draw):
    """Return bytes of which some, mostly near the beginning, are others or gone."""
    raw = bytearray(raw[: draw.choice([None, None, draw.randrange(len(raw) + 1)])])
    for _ in range(draw.randrange(1, 4)):
        at = int(len(raw) * draw.random() ** draw.choice([1, 1, 4]))
        act = draw.randrange(4)
        if act == 0:
            raw[at:at] = draw.choice(PIECES)
        elif act == 1:
            raw[at : at + 1] = bytes([draw.randrange(256)])
        elif act == 2:
            del raw[at : at + draw.randrange(1, 9)]
        else:
            raw[at : at + 8] = draw.randbytes(8)
    return bytes(raw)


def damaged_file(name, raw, draw):
    """Return the content of a file, damaged in the way its kind of file can be."""
    change = _CHANGES.get(name.rpartition(".")[2])
    return damaged(raw, draw) if change is None or draw.random() < 0.25 else change(raw, draw)


def _json(raw, draw):
    return mutated(json.loads(raw), draw)


def _safetensors(raw, draw):
    end = 8 + int.from_bytes(raw[:8], "little")
    header = mutated(json.loads(raw[8:end]), draw)
    return len(header).to_bytes(8, "little") + header + raw[end:]


def _parquet(raw, draw):
    """Forge what pandas keeps beside the table; or a table of other columns or values."""
    table = pq.read_table(io.BytesIO(raw))
    about = mutated(json.loads(table.schema.metadata[b"pandas"]), draw)
    column = draw.randrange(table.num_columns)
    act = draw.randrange(5)
    if act == 0:
        table = table.remove_column(column)
    elif act == 1:
        other = table.column(draw.randrange(table.num_columns))
        table = table.set_column(column, table.column_names[column], other)
    elif act == 2:
        table = table.slice(0, draw.randrange(2))
    else:
        table = table.replace_schema_metadata({b"pandas": about})
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def _toml(raw, draw):
    lines = raw.decode().splitlines()
    at = draw.randrange(len(lines))
    name = lines[at].partition(" = ")[0]
    odd = [*ODD, "inf", "nan", "1979-05-27", "[" * 3000, "[[1, 2], [1, 2]]", "['gaussian']", "0.5"]
    lines[at] = f"{name} = {draw.choice(odd)}"
    return "\n".join(lines).encode()


def _cell(raw, draw):
    """Damage what a cell holds, with the digest that belongs to it."""
    body = raw.partition(b"\n")[2]
    text, _, rest = body.partition(b"\n")
    if draw.random() < 0.5:
        text = mutated(json.loads(text), draw)
    else:
        rest = damaged(rest, draw)
    body = text + b"\n" + rest
    return hashlib.sha256(b"cell\n" + body).hexdigest().encode() + b"\n" + body


_CHANGES = {"json": _json, "safetensors": _safetensors, "parquet": _parquet, "toml": _toml,
            "cell": _cell}  # fmt: skip


def held(read, *arguments):
    """Return whether there was a value; fail unless the refusal is short."""
    try:
        read(*arguments)
    except InputError as error:
        problems = error.problems
    else:
        return True
    assert 0 < len(problems) <= MOST_PROBLEMS
    assert all(len(one) <= MOST_CHARACTERS and one.isprintable() for one in problems)
    return False
