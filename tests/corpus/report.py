"""What became of the sample files: a table for people, and JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_NUMBERS = ("trees", "entries", "columns", "readable", "identical", "skipped")


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Totals and files, from what each test of `tests.corpus.test_corpus` recorded."""
    files = [_file_row(result) for result in sorted(results, key=lambda r: str(r["file"]))]
    reasons: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for result in results:
        reasons.update(result["reasons"])
        kinds.update(result["kinds"])
    totals = {name: sum(row[name] for row in files) for name in (*_NUMBERS, "empty_trees")}
    totals = {"files": len(files), "files_without_trees": sum(not row["trees"] for row in files)} | totals
    return {"totals": totals, "kinds": _ordered(kinds), "reasons": _ordered(reasons), "files": files}


def _file_row(result: dict[str, Any]) -> dict[str, Any]:
    row = {name: result.get(name, 0) for name in (*_NUMBERS, "empty_trees")}
    return {"file": result["file"]} | row | {"readable": row["columns"] - row["skipped"]}


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def lines(summary: dict[str, Any]) -> list[str]:
    """The summary as text."""
    rows: list[tuple[str, ...]] = [("file", *_NUMBERS)]
    rows += [(row["file"], *(f"{row[name]:,}" for name in _NUMBERS)) for row in summary["files"]]
    totals = summary["totals"]
    rows.append((f"{totals['files']} files", *(f"{totals[name]:,}" for name in _NUMBERS)))
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    text = [
        "  ".join(c.rjust(w) if n else c.ljust(w) for n, (c, w) in enumerate(zip(r, widths, strict=True))) for r in rows
    ]
    text += [
        "",
        f"{totals['files_without_trees']:8,}  files without trees",
        f"{totals['empty_trees']:8,}  trees without entries",
    ]
    for title, key in (("converted columns by kind", "kinds"), ("skipped columns by reason", "reasons")):
        text += ["", title, *(f"{number:8,}  {name}" for name, number in summary[key].items())]
    share = totals["identical"] / max(1, totals["readable"])
    return [*text, "", f"{share:.2%} of the columns that uproot reads are converted, bit for bit"]


def write(summary: dict[str, Any], path: Path) -> None:
    """Write it as JSON, one file a line."""
    rows = ",\n".join(f"  {json.dumps(row)}" for row in summary["files"])
    totals = json.dumps({key: value for key, value in summary.items() if key != "files"}, indent=1)
    path.write_text(f'{totals.removesuffix("}").rstrip()},\n "files": [\n{rows}\n ]\n}}\n')
