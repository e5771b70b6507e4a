"""Write the results of the conversion into the README, between its two markers."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def convert_table(figures: dict[str, Any]) -> list[str]:
    flat, jagged = (figures["workloads"][name] for name in ("flat", "jagged"))
    lines = ["| conversion, decoded MB/s (MB on disk) | flat | jagged |", "|---|--:|--:|"]
    lines.append(f"| ROOT, zstd | ({flat['mb_on_disk']['ROOT, zstd']}) | ({jagged['mb_on_disk']['ROOT, zstd']}) |")
    for name in flat["mb_per_second"]:
        cells = []
        for work in (flat, jagged):
            size = work["mb_on_disk"].get(name, work["mb_on_disk"].get(", ".join(name.split(", ")[:2])))
            cells.append(f"{work['mb_per_second'][name]:.0f}" + (f" ({size})" if size else ""))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    convert = json.loads((HERE / "results" / "convert.json").read_text())
    machine, versions = convert["machine"], convert["versions"]
    note = (
        f"{machine['cores']} cores ({machine['cpu']}), Python {machine['python']}, uproot {versions['uproot']}; "
        "one run each, ratios within it. How: [benchmarks/](benchmarks/)."
    )
    section = "\n".join([BEGIN, *convert_table(convert), "", note, END])
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    README.write_text(before + section + rest.partition(END)[2])


if __name__ == "__main__":
    main()
