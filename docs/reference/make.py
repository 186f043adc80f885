"""Write what is generated of this folder: ``python docs/reference/make.py``."""

from __future__ import annotations

import json
from pathlib import Path

from amnesis.runs.results import Results

FOLDER = Path(__file__).parent


def generated() -> dict[str, str]:
    """Return the text of every generated file by its name."""
    schema = Results.model_json_schema(by_alias=True)
    return {"results.schema.json": json.dumps(schema, indent=1, ensure_ascii=False) + "\n"}


if __name__ == "__main__":
    for name, text in generated().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
