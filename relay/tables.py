"""`relay.toml` as plain tables, and the words for whatever is wrong in settings.

Any value in the file may be `"env:NAME"`, and `secrets_env = "NAME"` says the same of `secrets`: then the variable's
value stands there. Which variables were meant is kept, so that none of them counts as unknown.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

#: How the user wrote a field: `RELAY_PORT`, or `relay.toml: sources.shop.guard`.
NameOf = Callable[[str], str]

Table = Mapping[str, Any]

_REFERENCE = "env:"
_PLAIN = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


@dataclass(slots=True)
class Complaints:
    """Sentences: problems stop the start, warnings do not."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tables:
    """What the file says, by slug and by name. A table of which a variable is missing is there as None."""

    path: Path
    sources: dict[str, Table | None] = field(default_factory=dict)
    destinations: dict[str, Table | None] = field(default_factory=dict)
    #: The variables that the file reads.
    referenced: set[str] = field(default_factory=set)

    def name_of(self, *steps: str) -> str:
        """How a key is spoken of: `relay.toml: sources.shop.guard`."""
        return f"{self.path.name}: {'.'.join(step for step in steps if step)}"


def read_tables(path: Path, given: Mapping[str, str], complaints: Complaints) -> Tables:
    """The tables of this file, with the variables `given` put in; without any where it cannot be read."""
    tables = Tables(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        complaints.problems.append(f"{path} cannot be read: {error.strerror}. Correct RELAY_CONFIG, or unset it.")
        return tables
    except ValueError as error:
        complaints.problems.append(f"{path} is not TOML: {error}. Correct the file.")
        return tables
    kinds = {"sources": tables.sources, "destinations": tables.destinations}
    for kind, entries in raw.items():
        if kind not in kinds:
            complaints.problems.append(
                f"{tables.name_of(kind)} is not known.{meant(kind, kinds)} The file has tables named "
                "[sources.<slug>] and [destinations.<name>]; everything else is a variable."
            )
            continue
        for name, table in entries.items() if isinstance(entries, dict) else [("", entries)]:
            if isinstance(table, dict):
                kinds[kind][name] = _put_in(tables, (kind, name), table, given, complaints)
            else:
                complaints.problems.append(
                    f"{tables.name_of(kind, name)} is not a table. Write [{kind}.<name>] above its keys."
                )
    return tables


def _put_in(
    tables: Tables, place: tuple[str, str], table: Table, given: Mapping[str, str], complaints: Complaints
) -> Table | None:
    """The table with its variables put in, or None where one of them is not set."""
    before = len(complaints.problems)

    def value_of(name: str, key: str) -> str:
        tables.referenced.add(name)
        if not given.get(name):
            complaints.problems.append(
                f"{tables.name_of(*place, key)}: the variable {name} is not set, or empty. Set it."
            )
        return given.get(name, "")

    def resolve(value: Any, key: str) -> Any:
        if isinstance(value, str) and value.startswith(_REFERENCE):
            return value_of(value.removeprefix(_REFERENCE), key)
        return [resolve(item, key) for item in value] if isinstance(value, list) else value

    full = {key: resolve(value, key) for key, value in table.items()}
    for key in [key for key in full if key.endswith("_env")]:
        meant_key = key.removesuffix("_env")
        if meant_key in full:
            complaints.problems.append(
                f"{tables.name_of(*place, key)} and {meant_key} say the same. Remove one of them."
            )
        full[meant_key] = value_of(str(full.pop(key)), key)
    return full if len(complaints.problems) == before else None


# --- saying what is wrong ---------------------------------------------------------------------------------------------


def meant(word: str, known: Iterable[str]) -> str:
    """A question with the nearest known word, to be put after a sentence; empty where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f" Did you mean {near[0]}?" if near else ""


def sentences(error: ValidationError, model: type[BaseModel], name_of: NameOf) -> list[str]:
    """One sentence for each thing that pydantic found: the setting, what it must be, what it is (no secrets)."""
    return [_sentence(found, model, name_of) for found in error.errors(include_url=False)]


def _sentence(found: Any, model: type[BaseModel], name_of: NameOf) -> str:
    path, info, known = _looked_up(found["loc"], model)
    if info is None:
        return f"{name_of(path)} is not a setting.{meant(path.rpartition('.')[2], known)} Correct or remove it."
    if found["type"] == "missing":
        return f"{name_of(path)} is missing. {info.description}"
    must = _PLAIN.get(found["type"], found["msg"].removeprefix("Value error, ").replace("Input should be", "must be"))
    shown = "" if "Secret" in repr(info.annotation) else f", but is {found['input']!r}"
    return f"{name_of(path)} {must}{shown}. {info.description}"


def _looked_up(
    steps: tuple[int | str, ...], model: type[BaseModel]
) -> tuple[str, FieldInfo | None, Mapping[str, FieldInfo]]:
    """The path of a key (`events[1].revenue`), its field (None: there is none), and the fields of its table."""
    path = str(steps[0]) if steps else ""
    fields = model.model_fields
    info = fields.get(path.lower())  # an alias is the field's name in capitals
    table = None if info is None else _table_in(info.annotation)
    if table is None:
        return path, info, fields
    for step in steps[1:]:
        if step == "[key]":
            continue
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
        if isinstance(step, str) and table is not None:
            fields = table.model_fields
            info = fields.get(step)
            if info is None:
                break
            table = _table_in(info.annotation)
    return path, info, fields


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """The model of the tables that a field holds, one or a list of them; None where it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((table for part in get_args(annotation) if (table := _table_in(part))), None)
