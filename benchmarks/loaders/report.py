"""Table, plot and the README's section of the loaders, from their figures.

python benchmarks/loaders/report.py [FIGURES]
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
FIGURES = HERE.parent / "results" / "loaders.json"
BEGIN, END = "<!-- loaders:begin -->", "<!-- loaders:end -->"
TITLES = {
    "w1": "W1: 28 flat features",
    "w2": "W2: jets, padded to 128 x 8",
    "w2f": "W2: jets, values and offsets",
    "w3": "W3: images of 25 x 25 x 25",
}
#: Cores of others above which a figure is marked.
DISTURBED = 0.25
WELL_MIXED = 1.1
COLOURS = {"ours": "#c2272d", "compressed": "#1f6fb4", "plain": "#767676"}
LEGEND = {
    "ours": "ours (compressed, checksummed)",
    "compressed": "others, compressed files",
    "plain": "others, uncompressed or in memory",
}

Run = dict[str, Any]


def per_second(rate: float) -> str:
    return f"{rate / 1e6:.2f} M" if rate >= 1e6 else f"{rate / 1e3:.1f} k" if rate >= 1e3 else f"{rate:.0f}"


def noise(run: Run) -> str:
    return "-" if run["class_noise"] is None else f"{run['class_noise']:.2f}"


def best(runs: list[Run], workload: str) -> list[Run]:
    """Of each peer on a workload the run on the most cores, fastest first."""
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda r: r["cores"]):
        if run["workload"] == workload and "rate" in run:
            found[run["peer"]] = run
    return sorted(found.values(), key=lambda r: -r["of_limit"])


def table(runs: list[Run], workload: str) -> Iterator[str]:
    yield (
        "| loader | 1 core /s | 2 cores /s | of the limit | class noise | spread | MB/s | CPU us | memory MB "
        "| first batch cold / warm s | disk MB |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for run in best(runs, workload):
        by_cores = {
            r["cores"]: per_second(r["rate"]) + ("*" if r["other_cpu"] > DISTURBED else "")
            for r in runs
            if "rate" in r and (r["peer"], r["workload"]) == (run["peer"], workload)
        }
        name = run["peer"] + (f" (n = {run['entries']:,})" if run["entries"] else "")
        cells = [
            f"**{name}**" if run["kind"] == "ours" else name,
            by_cores.get(1, "-"),
            by_cores.get(2, "-"),
            f"{run['of_limit']:.3f}",
            noise(run),
            f"{run['spread']:.2f}",
            f"{run['mb_per_second']:.0f}",
            f"{run['cpu_us']:.2f}",
            str(run["peak_memory_mb"]),
            f"{run['first_batch_cold_s']:.2f} / {run['first_batch_warm_s']:.3f}",
            f"{run['disk_mb']:.0f}",
        ]
        yield f"| {' | '.join(cells)} |"


def report(figures: dict[str, Any]) -> str:
    runs = figures["runs"]
    lines = ["# Loaders side by side", "", machine(figures), "", "![rates against class noise](loaders.png)"]
    for workload, title in TITLES.items():
        if best(runs, workload):
            entries = figures["data"][workload[:2]]
            lines += ["", f"## {title}, {entries:,} entries", "", *table(runs, workload)]
    failed = [f"{r['peer']} on {r['workload']}, {r['cores']} cores: {r['error']}" for r in runs if "error" in r]
    failed += [f"{m['peer']}: {m['reason']}" for m in figures["missing"]]
    if failed:
        lines += ["", "## Not measured", "", *(f"- {line}" for line in failed)]
    versions: dict[str, set[str]] = {}
    for found in figures["environments"].values():
        for package, version in found.items():
            versions.setdefault(package, set()).add(version)
    named = (f"{package} {' and '.join(sorted(found))}" for package, found in sorted(versions.items()))
    lines += ["", f"Versions: {', '.join(named)}.", ""]
    lines += [f"`*`: others used more than {DISTURBED} of a core meanwhile. Columns: [README.md](../README.md).", ""]
    return "\n".join(lines)


def machine(figures: dict[str, Any]) -> str:
    found = figures["machine"]
    return f"{found['cores']} cores ({found['cpu']}), Python {found['python']}, page cache warm."


def leaders(runs: list[Run]) -> list[str]:
    """Ours, the limit, and of the others on each workload the two fastest and the fastest that mixes well."""
    chosen: dict[str, None] = {}
    for workload in TITLES:
        found = best(runs, workload)
        others = [r for r in found if r["kind"] != "ours" and not r["peer"].startswith("in memory")]
        mixed = [r for r in others if (r["class_noise"] or 0) <= WELL_MIXED and r["kind"] == "compressed"]
        rows = [r for r in found if r["kind"] == "ours"] + others[:2] + mixed[:1]
        chosen |= dict.fromkeys(r["peer"] for r in rows)
    order = {r["peer"]: r["kind"] != "ours" for r in runs if "rate" in r}
    return ["in memory", *sorted(chosen, key=lambda peer: order[peer])]


def section(figures: dict[str, Any]) -> str:
    """What stands in the README."""
    runs = figures["runs"]
    shown = [w for w in TITLES if best(runs, w)]
    by_peer = {w: {r["peer"]: r for r in best(runs, w)} for w in shown}
    lines = [f"| entries per second (class noise) | {' | '.join(TITLES[w] for w in shown)} |"]
    lines.append("|---|" + "--:|" * len(shown))
    for peer in leaders(runs):
        cells = [f"{per_second(r['rate'])} ({noise(r)})" if (r := by_peer[w].get(peer)) else "" for w in shown]
        own = any(r["kind"] == "ours" for w in shown if (r := by_peer[w].get(peer)))
        cells = [f"**{cell}**" if own and cell else cell for cell in (peer, *cells)]
        lines.append(f"| {' | '.join(cells)} |")
    plot = "![Rates of loaders relative to data in memory, against class noise](benchmarks/loaders/loaders.png)"
    return "\n".join([*lines, "", machine(figures), "", plot])


def apart(heights: list[float], gap: float) -> list[float]:
    """The heights, falling, moved apart as little as it takes to be ``gap`` from one another."""
    groups: list[list[float]] = []  # each: sum of (height + gap * place in the group), members
    for height in heights:
        groups.append([height, 1])
        while len(groups) > 1:
            (upper, above), (lower, below) = groups[-2:]
            if upper / above - gap * (above - 1) / 2 - (lower / below + gap * (below - 1) / 2) >= gap:
                break
            groups[-2:] = [[upper + lower, above + below]]
    return [total / count + gap * ((count - 1) / 2 - place) for total, count in groups for place in range(int(count))]


def plot(figures: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    shown = [w for w in TITLES if any(r["class_noise"] for r in best(figures["runs"], w))]
    image, axes = plt.subplots((len(shown) + 1) // 2, 2, figsize=(13, 6.2 * ((len(shown) + 1) // 2)), squeeze=False)
    for axis, workload in zip(axes.flat, shown, strict=False):
        panel(axis, best(figures["runs"], workload), TITLES[workload])
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    dots = [Line2D([], [], color=c, marker="o", linestyle="", label=LEGEND[k]) for k, c in COLOURS.items()]
    image.legend(handles=dots, loc="upper center", ncols=3, frameon=False, fontsize=11)
    image.tight_layout(rect=(0, 0, 1, 0.97))
    image.savefig(path, dpi=110)
    plt.close(image)


def panel(axis: Any, runs: list[Run], title: str) -> None:
    from math import log10

    points = [(max(0.7, r["class_noise"]), log10(r["of_limit"]), r) for r in runs if r["class_noise"]]
    low, high = min(y for _, y, _ in points) - 0.15, max(0.1, max(y for _, y, _ in points) + 0.15)
    axis.set(xscale="log", xlim=(0.6, 260), ylim=(low, high), title=title)
    axis.set(xlabel="class noise (1: random order)", ylabel="rate, of the same data in memory")
    axis.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axis.minorticks_off()
    ticks = [t for t in range(-5, 2) if low <= t <= high]
    axis.set_yticks(ticks, [f"{10.0**t:g}" for t in ticks])
    axis.grid(color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.axhline(0, color="#333333", linewidth=0.8, linestyle="--")
    for column, side in ((2.6, [p for p in points if p[0] < 2.2]), (48, [p for p in points if p[0] >= 2.2])):
        side.sort(key=lambda point: -point[1])
        for (x, y, run), height in zip(side, apart([y for _, y, _ in side], 0.035 * (high - low)), strict=True):
            colour = COLOURS[run["kind"]]
            axis.plot([x, column * 0.96], [y, height], color=colour, linewidth=0.5, alpha=0.5)
            axis.plot(x, y, "o", color=colour, markersize=7 if run["kind"] == "ours" else 5)
            weight = "bold" if run["kind"] == "ours" else "normal"
            axis.text(column, height, run["peer"], color=colour, fontsize=8.5, va="center", weight=weight)


def main(source: Path = FIGURES, folder: Path = HERE, readme: Path = README) -> None:
    figures = json.loads(source.read_text())
    (folder / "loaders.md").write_text(report(figures))
    plot(figures, folder / "loaders.png")
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{readme} has no {BEGIN} ... {END}")
    readme.write_text(f"{before}{BEGIN}\n{section(figures)}\n{END}{after}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
