"""loss.png: the loss of a run over its steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def plot_loss(entries: Sequence[dict[str, float]], title: str, path: Path) -> None:
    """Draw the loss (nats per answer token) of log entries, with a running mean over about a twentieth of them."""
    from matplotlib.figure import Figure

    steps, losses = [entry["step"] for entry in entries], [entry["loss"] for entry in entries]
    window = max(len(losses) // 20, 1)
    means = [sum(part := losses[max(0, at - window + 1) : at + 1]) / len(part) for at in range(len(losses))]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color="lightsteelblue", linewidth=1, label="as logged")
    axes.plot(steps, means, color="navy", linewidth=1.5, label=f"mean of {window}")
    axes.set(title=title, xlabel="optimizer step", ylabel="loss (nats per answer token)")
    axes.legend()
    figure.savefig(path, dpi=120)
