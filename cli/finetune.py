"""`psserve finetune`: train a decode module on the base's KV cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psserve.errors import UsageError

from .add_model import warn
from .options import zoo_option

if TYPE_CHECKING:
    from psserve.training.config import Method


@click.command("finetune")
@click.argument("name")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="JSON Lines or Parquet.", multiple=True)
@click.option("--task", default="", help="What the module is for, in words.")
@click.option("--example", "examples", help="A prompt that is this module's (repeatable).", multiple=True)
@click.option("--alias", "aliases", help="Another name for it (repeatable).", multiple=True)
@click.option("--lora", is_flag=True, help="Train a LoRA adapter [default: all parameters].")
@click.option("--rank", type=int, help="Rank of the adapter [default: 16].")
@click.option("--lora-target", "targets", help="A linear layer to adapt, e.g. q_proj (repeatable).", multiple=True)
@click.option(
    "--merge", is_flag=True, help="Merge the adapter into the base's weights: a module with servers of its own."
)
@click.option(
    "--icarus", is_flag=True, help="By ICaRus' rule: the KV of answers is the base's too; no server serves it (--lora)."
)
@click.option("--method", type=click.Choice(["cache-conditioned", "full"]), default="cache-conditioned")
@click.option("--epochs", type=float, default=1.0, show_default=True)
@click.option("--steps", type=int, help="Optimizer steps, instead of epochs.")
@click.option("--learning-rate", "--lr", type=float, help="Its peak [default: 2e-5, with LoRA 2e-4].")
@click.option("--warmup", type=float, default=0.03, show_default=True, help="Share of the steps.")
@click.option("--weight-decay", type=float, default=0.1, show_default=True)
@click.option("--max-grad-norm", type=float, help="Scale greater gradients down to this norm [default: none].")
@click.option("--batch-size", type=int, default=8, show_default=True, help="Conversations on each device at once.")
@click.option("--accumulation", type=int, default=2, show_default=True, help="Batches for one step.")
@click.option("--max-length", type=int, help="Longest conversation, in tokens [default: 1,024].")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True)
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory, more time.")
@click.option("--save-every", type=int, default=500, show_default=True, help="Steps between checkpoints.")
@click.option("--log-every", type=int, default=10, show_default=True, help="Steps between log entries.")
@click.option("--report-to", help="Logging integration of Transformers, e.g. tensorboard (repeatable).", multiple=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run [default: .training/NAME in the zoo].")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--overwrite", is_flag=True, help="Replace a module or a run of this name.")
@zoo_option
def command(
    zoo_dir: Path | None,
    lora: bool,
    rank: int | None,
    targets: tuple[str, ...],
    merge: bool,
    icarus: bool,
    method: Method,
    **fields: Any,
) -> None:
    """Train decode module NAME on the base's KV cache, and add it to the zoo.

    Data: one conversation a line, {"messages": [...], "tools": [...]} or {"prompt": ..., "completion": ...}. The run's
    folder gets metrics.jsonl and loss.png. Ctrl-C stops after the current step; --resume goes on. A module trained with
    --lora stays an adapter: all of these share their servers.

    \b
    Examples:
      psserve finetune math --data math.jsonl --epochs 3 --task "school mathematics"
      psserve finetune code --data code.jsonl --lora --rank 16
      accelerate launch -m psserve.cli.main finetune math --data math.jsonl     (several GPUs)
    """
    if not lora and (rank is not None or targets):
        raise UsageError("--rank and --lora-target need --lora")
    if merge and not lora:
        raise UsageError("--merge needs --lora")
    if icarus and method == "full":
        raise UsageError("--icarus is a way of training on the base's KV cache: leave --method full out")
    from psserve.training.packages import check_packages, quiet_packages

    check_packages()
    quiet_packages()
    from psserve.training.config import FinetuneConfig, LoraConfig
    from psserve.training.finetune import finetune
    from psserve.zoo import Zoo, find_zoo

    adapter = LoraConfig(16 if rank is None else rank, targets=targets, merge=merge) if lora else None
    config = FinetuneConfig(lora=adapter, method="icarus" if icarus else method, **fields)
    done = finetune(Zoo.open(find_zoo(zoo_dir)), config)
    if os.environ.get("RANK", "0") == "0":  # of several processes under `accelerate launch`, one speaks
        summary = f"{done.steps} steps, loss {done.loss:.4f}; {done.run}"
        if done.module is None:
            click.echo(f"{done.run / 'adapter'}: by ICaRus' rule, which no server follows: {summary}", err=True)
            return
        click.echo(f"added {done.module.name} ({done.module.kind}): {summary}", err=True)
        warn(done.module)
