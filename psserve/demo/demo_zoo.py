"""The demo zoo: tokenizer, base and three modules, all from seeds.

corpus -> tokenizer -> pretrained base -> training items of each task -> cache-conditioned module -> zoo
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from psserve import torchvision_ops
from psserve.demo.pool import all_cores, progress_in, side_by_side
from psserve.demo.pretrain import PretrainConfig, StateFile, StepStats, fast_dtype, pretrain
from psserve.demo.tasks import TASKS, Task, conversations, example_requests, held_out_items, training_items
from psserve.demo.tasks.corpus import corpus, reading, repetitions
from psserve.demo.tasks.tokenizer import render_text, write_demo_tokenizer
from psserve.errors import ZooError
from psserve.training.data import write_conversations
from psserve.training.tokenization import pretraining_blocks
from psserve.zoo import Zoo
from psserve.zoo.disk.manifest import hash_bytes

torchvision_ops.declare_missing()
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

if TYPE_CHECKING:
    from psserve.training.config import FinetuneConfig

BASE_NAME = "demo-base"
CONTEXT_LENGTH = 4096
BLOCK = 512
"""Tokens of one pretraining block."""
SHORT_BLOCK = 64
"""Of the phase in which the base learns to copy."""

SHAPE: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "initializer_range": 0.04,
}
"""Qwen3, 2.6 million parameters: with three modules, 20 MB in 16-bit numbers."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class DemoConfig:
    """How the demo zoo is built; the defaults are those of the committed one."""

    copying: PretrainConfig = field(default_factory=lambda: PretrainConfig(steps=2000, batch_size=8))
    """The first phase of pretraining. Without it the base has not learnt to copy after 8 million tokens, and a module
    finds no names in its KV."""
    pretraining: PretrainConfig = field(default_factory=lambda: PretrainConfig(steps=8000))
    reading: PretrainConfig = field(default_factory=lambda: PretrainConfig(steps=4000, learning_rate=1e-3))
    """The third phase, mostly on the tasks' questions: a module can find in the base's KV only what the base reads."""
    finetuning_steps: Mapping[str, int] = field(default_factory=lambda: {"math": 4000, "code": 1500, "tools": 1500})
    """By task: until the loss no longer falls much."""
    finetuning_batch: int = 4
    """As in pretraining, many small steps teach more than few large ones."""
    learning_rate: float = 2e-3
    """Of the modules. At 1e-3 they end no better, and full fine-tuning stays so near to the base that naive sharing
    costs little: on problems with working 7 points."""
    training_items: int = 30_000
    """Conversations for each module; it sees some of them more than once if the steps ask for more."""
    test_items: int = 1000
    tokenizer_texts: int = 20_000
    shape: dict[str, Any] = field(default_factory=dict)
    """Overrides SHAPE."""
    tasks: tuple[str, ...] = tuple(TASKS)
    seed: int = 0


def build_demo_zoo(path: Path, work: Path, config: DemoConfig, note: Note) -> Zoo:
    """Build the demo zoo at `path`, with data files and the base's state in `work`. `note` is told what happens.

    If it is interrupted, the next call goes on with the base where this one was.
    ZooError if there is anything at `path`.
    """
    if path.exists() and any(path.iterdir()):
        raise ZooError(f"{path}: not empty: move it away, or choose another directory")
    work.mkdir(parents=True, exist_ok=True)
    building = path.resolve().with_name(f".{path.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    make_base(building / "base", config, note, work)
    Zoo.create(building, building / "base", name=BASE_NAME)
    note(f"modules: training {', '.join(config.tasks)}; progress is in {work}/NAME.log")
    processes = min(len(config.tasks), all_cores())
    for name, _ in side_by_side(partial(add_module, building, work, config), config.tasks, processes):
        note(f"{name}: complete")
    building.rename(path)  # at once, so that an interrupted build never looks like a zoo
    return Zoo.open(path)


def zoo_over(path: Path, base: Path) -> Zoo:
    """The zoo at `path`, made over the base in the folder `base` unless it is there already."""
    return Zoo.open(path) if path.exists() else Zoo.create(path, base.resolve(), BASE_NAME)


def make_base(directory: Path, config: DemoConfig, note: Note, work: Path) -> None:
    """Train tokenizer and base, and save them as a checkpoint in 16-bit numbers.

    `work` keeps the state of each phase, 30 MB: an interrupted call goes on from there when it is repeated.
    """
    directory.mkdir(parents=True)
    note("tokenizer: training")
    write_demo_tokenizer(directory, tokenizer_texts(config), CONTEXT_LENGTH)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    torch.manual_seed(config.seed)
    model = Qwen3ForCausalLM(model_config(tokenizer, config.shape)).float()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    note(f"base: {model.num_parameters():,} parameters")
    phases = (
        (repetitions, SHORT_BLOCK, config.copying),
        (corpus, BLOCK, config.pretraining),
        (reading, BLOCK, config.reading),
    )
    made_of = (directory / "tokenizer.json").read_text() + f"{model.config} {config.seed}"
    for texts, block, phase in phases:
        note(f"base: {texts.__name__}, {phase.steps} steps")
        made_of = hash_bytes(repr([made_of, list(islice(texts(config.seed), 1000)), block, phase]).encode())
        state = StateFile(work / f"base-{texts.__name__}.pt", made_of)
        pretrain(model, pretraining_blocks(texts(config.seed), tokenizer, block), phase, reporter(note), state)
    save_base(model, directory)


def tokenizer_texts(config: DemoConfig) -> Iterator[str]:
    """The corpus, and for a tenth as many texts each task's answers, whose forms the corpus does not show."""
    answers = (
        render_text(item) for name in TASKS for item in islice(conversations(name), config.tokenizer_texts // 10)
    )
    return chain(islice(corpus(config.seed), config.tokenizer_texts), answers)


def model_config(tokenizer: Any, shape: dict[str, Any]) -> Qwen3Config:
    """The base's configuration."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **(SHAPE | shape),
    )


def save_base(model: PreTrainedModel, directory: Path) -> None:
    """Write the weights in float16: its errors are eight times smaller than bfloat16's, and nothing here overflows."""
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id
    )
    model.to(torch.float16).save_pretrained(directory)


def reporter(note: Note) -> Callable[[StepStats], None]:
    """Passes on every two hundredth step."""

    def report(progress: StepStats) -> None:
        if progress.step % 200 == 0:
            note(
                f"base: step {progress.step}, loss {progress.loss:.3f}, {progress.tokens_per_s:,.0f} tokens/s, "
                f"{progress.seconds_left / 60:.0f} min left"
            )

    return report


def add_module(zoo: Path, work: Path, config: DemoConfig, name: str) -> None:
    """Write the data files of the task `name`, and train its module into the zoo."""
    from psserve.training.finetune import finetune

    write_conversations(held_out_file(work, name), held_out_items(name, config.test_items, config.seed))
    write_conversations(train_file(work, name), training_items(name, config.training_items, config.seed))
    with progress_in(work / f"{name}.log"):
        finetune(Zoo.open(zoo), finetune_config(TASKS[name], work, config))


def finetune_config(task: Task, work: Path, config: DemoConfig) -> FinetuneConfig:
    """How a task's module is trained."""
    from psserve.training.config import FinetuneConfig

    return FinetuneConfig(
        name=task.name,
        data=(train_file(work, task.name),),
        steps=config.finetuning_steps[task.name],
        batch_size=config.finetuning_batch,
        accumulation=1,
        weight_decay=0.0,
        max_grad_norm=1.0,
        learning_rate=config.learning_rate,
        dtype="bfloat16" if fast_dtype() == torch.bfloat16 else "float32",
        seed=config.seed,
        task=task.description,
        examples=example_requests(task.name),
    )


def train_file(work: Path, task: str) -> Path:
    """A task's training data."""
    return work / f"{task}-train.jsonl"


def held_out_file(work: Path, task: str) -> Path:
    """A task's held-out items."""
    return work / f"{task}-test.jsonl"
