"""Write what is generated and kept beside the code: ``python -m docs.reference.make``.

The pages of the site are generated when it is built; :mod:`docs.hooks` names them.
"""

from __future__ import annotations

import json
from pathlib import Path

from docs.generate import measured
from docs.generate.readme import README, readme

from amnesis.runs.results import Results

FOLDER = Path(__file__).parent


def generated() -> dict[Path, str]:
    """Return the text of every generated file by its path."""
    schema = Results.model_json_schema(by_alias=True)
    return {
        FOLDER / "results.schema.json": json.dumps(schema, indent=1, ensure_ascii=False) + "\n",
        README: readme(),
        **measured.pages(),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
