"""The generated reference is what the code says now."""

from __future__ import annotations

import json

import pytest
from docs.reference import make

from amnesis.runs.results import Results


@pytest.mark.parametrize("name", make.generated())
def test_the_reference_is_up_to_date(name: str) -> None:
    written = (make.FOLDER / name).read_text(encoding="utf-8")
    assert written == make.generated()[name], "run python docs/reference/make.py"


def test_the_schema_of_results_describes_every_key() -> None:
    schema = json.loads((make.FOLDER / "results.schema.json").read_text(encoding="utf-8"))
    keys = {field.alias or name for name, field in Results.model_fields.items()}
    assert set(schema["properties"]) == keys
    assert all(entry.get("description") for entry in schema["properties"].values())
