"""The accuracy table (`psserve.training.compare.summary`) as JSON, Markdown, PNG and SVG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from psserve.errors import UsageError
from psserve.training.compare import TRAINED

LABELS = {
    "base": "base as it is",
    "full": "full fine-tuning, own prefill",
    "naive": "naive sharing: the same model over the base's KV",
    "prefillshare": "PrefillShare: trained on the base's KV",
    "lora": "PrefillShare, LoRA of rank 16",
}


def write_accuracy(table: dict[str, Any], directory: Path, name: str = "accuracy") -> list[Path]:
    """Write NAME.json, NAME.md, NAME.png and NAME.svg; UsageError if matplotlib is missing (before anything else)."""
    figure = draw(table)
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{name}.{kind}" for kind in ("json", "md", "png", "svg")]
    paths[0].write_text(json.dumps(table, indent=2) + "\n")
    paths[1].write_text(accuracy_markdown(table))
    save_curves(figure, paths[2], paths[3])
    return paths


def save_curves(figure: Any, png: Path, svg: Path) -> None:
    """Write the figure; the same table gives the same files."""
    from matplotlib import rc_context

    figure.savefig(png, dpi=120)
    with rc_context({"svg.hashsalt": "psserve"}):
        figure.savefig(svg, metadata={"Date": None})


def accuracy_markdown(table: dict[str, Any]) -> str:
    """Two tables: the rows, and the curves. Percent, with the spread where there is one."""
    tasks = table["tasks"]
    spread = ", ± sample standard deviation; a row without it: one seed" if table["seeds"] > 1 else ""
    lines = [f"Accuracy in percent, mean of {seeds(table['seeds'])}{spread}.", "", header("", list(tasks))]
    for row in (row for row in LABELS if row in next(iter(tasks.values()))):
        cells = [percent(entry[row], entry.get("spread", {}).get(row)) for entry in tasks.values()]
        lines.append(line([LABELS[row], *cells]))
    lines += ["", f"By the share of the prompt's KV that comes from the base, {seeds(table['curve_seeds'])}:", ""]
    shares = list(next(iter(tasks.values()))["shares"]["full"])
    lines.append(header("", [f"{share}%" for share in shares]))
    for task, entry in tasks.items():
        for name in TRAINED:
            lines.append(line([f"{task}, {name}", *(percent(entry["shares"][name][share]) for share in shares)]))
    return "\n".join(lines) + "\n"


def seeds(count: int) -> str:
    """1 seed, 3 seeds."""
    return f"{count} seed{'s' if count > 1 else ''}"


def percent(value: float, spread: float | None = None) -> str:
    """0.875 as 87.5."""
    return f"{100 * value:.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "")


def header(first: str, columns: list[str]) -> str:
    """A Markdown table's first two lines."""
    return line([first, *columns]) + "\n" + line(["---", *["---:"] * len(columns)])


def line(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def draw(table: dict[str, Any]) -> Any:
    """The curves as a matplotlib figure, one panel a task."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("the plot needs matplotlib: pip install 'psserve[train]'") from None
    tasks = table["tasks"]
    figure = Figure(figsize=(4 * len(tasks), 3.6), layout="constrained")
    for axes, (task, entry) in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks.items(), strict=True):
        for name, style in (("full", "o--"), ("prefillshare", "s-")):
            curve = entry["shares"][name]
            axes.plot([int(share) for share in curve], [100 * value for value in curve.values()], style, label=name)
        axes.axhline(100 * entry["base"], color="grey", linewidth=0.8, label="base")
        axes.set(title=task, xlabel="% of the prompt's KV from the base", ylabel="accuracy (%)", ylim=(-3, 103))
    axes.legend()
    return figure
