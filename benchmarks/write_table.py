"""Write the benchmark results into the README, between its two markers."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def loader_table(figures: dict[str, Any]) -> list[str]:
    flat, jagged = (figures["workloads"][name] for name in ("flat", "jagged"))
    lines = ["| shuffled batches of 1,024 | flat, 28 features | jagged, padded to 128 x 8 |", "|---|--:|--:|"]
    for name in flat["entries_per_second"]:
        cells = [f"{w['entries_per_second'][name] / 1e6:.2f} M/s" for w in (flat, jagged)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for key, label in (("uproot", "uproot"), ("memory", "in memory")):
        cells = [f"{w[f'cache_small_to_{key}']:.2f}" for w in (flat, jagged)]
        lines.append(f"| **cache, small : {label}** | **{'** | **'.join(cells)}** |")
    return lines


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
    loader, convert = (json.loads((HERE / "results" / f"{n}.json").read_text()) for n in ("loader", "convert"))
    machine, versions = loader["machine"], loader["versions"]
    note = (
        f"{machine['cores']} cores ({machine['cpu']}), Python {machine['python']}, uproot {versions['uproot']}, "
        f"torch {versions['torch']}; one run each, ratios within it. How: [benchmarks/](benchmarks/)."
    )
    section = "\n".join([BEGIN, *loader_table(loader), "", *convert_table(convert), "", note, END])
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    README.write_text(before + section + rest.partition(END)[2])


if __name__ == "__main__":
    main()
