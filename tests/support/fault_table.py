"""Keep the table of what each cell of the fault matrix was seen to do, in a Markdown file."""

from __future__ import annotations

from pathlib import Path

COLUMNS = ("cell", "answer", "detected after", "stepping again after", "rows replayed", "run took")


def seconds(value: float | None) -> str:
    """Write a measured time; empty where there is none."""
    return "" if value is None else f"{value:.1f} s"


class FaultTable:
    """Rows by cell; those of an earlier run stay until their cell is run again.

    What stands before the table is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text() if path.exists() else ""
        lines = text.splitlines()
        table = [line for line in lines if line.startswith("|")]
        self._preamble = "\n".join(lines[: lines.index(table[0])] if table else lines).rstrip()
        cells = [[field.strip() for field in line.strip("|").split("|")] for line in table[2:]]
        self._rows = {fields[0]: fields for fields in cells}

    def put(self, *fields: str) -> None:
        self._rows[fields[0]] = list(fields)
        rows = [COLUMNS, ["---"] * len(COLUMNS), *(self._rows[key] for key in sorted(self._rows))]
        table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        self._path.write_text(f"{self._preamble}\n\n{table}\n")
