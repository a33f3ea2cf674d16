"""The golden pictures: of the default model in tests/golden, of image models before it in folders named after them."""

from __future__ import annotations

import json
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"
ERRORS = GOLDEN / "errors"
FOLDERS = [GOLDEN, *sorted(path.parent for path in GOLDEN.glob("*.*/expected.json"))]


def expectations(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "expected.json").read_text())


EXPECTED = {
    (folder / name).relative_to(GOLDEN).as_posix(): found
    for folder in FOLDERS
    for name, found in expectations(folder).items()
}
EXPECTED_ERRORS = expectations(ERRORS)


def read(name: str) -> bytes:
    """A golden picture by its name in `EXPECTED`."""
    return (GOLDEN / f"{name}.pixa").read_bytes()
