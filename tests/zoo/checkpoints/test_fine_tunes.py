"""Fine-tunes as people's tools save them: Transformers' Trainer, TRL's SFTTrainer, PEFT's adapters and merged models.

Each is accepted and then answers as plain Transformers does with the same files, or is refused for what is true of it.
TRL is not installed: its trainer is Transformers', and what it changes first is written here after its documentation
(0.24: a padding token and a chat template of one's own, the end token of that template, embeddings with room for both).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from psserve.errors import IncompatibleCheckpoint
from psserve.training.answers import end_tokens
from psserve.training.hf import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from psserve.training.reference import load_model, load_pair, reference_answer
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from psserve.zoo.synthetic.tokenizer import END, PAD, START
from psserve.zoo.synthetic.zoo import new_model, randomise, save_model

ROWS = 520
"""Of the embeddings: eight more than the tokenizer has tokens, as real bases have some."""
TEXTS = ("The sum of 12 and 30 is 42.", "How many apples are left?", "return first + second", "Paris, in celsius")
PROMPTS = ([5, 300, 17, 44, 210, 91], [400], [33, 33, 120, 8, 250, 77, 510, 6, 19])
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}: {{ message.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
)


@dataclass(frozen=True)
class Family:
    """How a well-known family spells its special tokens."""

    architecture: Architecture
    first: int | None
    """In config.json."""
    ends: list[int]
    begins: bool
    """Whether its tokenizer begins every text with a token; it then has no token for padding."""


QWEN = Family("qwen3", 0, [2, 0], begins=False)
LLAMA = Family("llama", 1, [0, 2], begins=True)


def make_base(family: Family, tied: bool, directory: Path) -> Path:
    """A small base of random weights."""
    shape = {"num_hidden_layers": 2, "vocab_size": ROWS, "tie_word_embeddings": tied}
    model = new_model(family.architecture, shape)
    randomise(model, torch.Generator().manual_seed(3))
    model.config.bos_token_id = model.generation_config.bos_token_id = family.first
    model.config.eos_token_id = 2 if family is QWEN else family.ends
    model.generation_config.eos_token_id = family.ends
    model.config.pad_token_id = model.generation_config.pad_token_id = None
    directory.mkdir(parents=True)
    save_model(model, directory)
    if family.begins:
        begin_texts(directory)
    return directory


def begin_texts(checkpoint: Path) -> None:
    """Have its tokenizer put a token before every text, and pad with none."""
    path = checkpoint / "tokenizer.json"
    document = json.loads(path.read_text())
    first, text = {"SpecialToken": {"id": START, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {START: {"id": START, "ids": [1], "tokens": [START]}},
    }
    path.write_text(json.dumps(document))
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": START, "pad_token": None}))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(
    scope="module",
    params=[(QWEN, True), (QWEN, False), (LLAMA, True), (LLAMA, False)],
    ids=["qwen-tied", "qwen-untied", "llama-tied", "llama-untied"],
)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, tied = request.param
    return make_base(family, tied, tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture
def zoo(base: Path, tmp_path: Path) -> Zoo:
    return Zoo.create(tmp_path / "zoo", base)


def train(model: Any, tokenizer: Any, directory: Path) -> Path:
    """Three steps of Transformers' Trainer on plain texts; what it saves is in `directory`."""
    rows = [tokenizer(text)["input_ids"] for text in TEXTS]

    def collate(batch: list[Any]) -> dict[str, torch.Tensor]:
        padded = tokenizer.pad({"input_ids": [row["input_ids"] for row in batch]}, return_tensors="pt")
        return {**padded, "labels": padded["input_ids"].masked_fill(padded["attention_mask"] == 0, -100)}

    arguments = TrainingArguments(
        str(directory.with_name("run")),
        max_steps=3,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=[{"input_ids": row} for row in rows],
        data_collator=collate,
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(directory))
    return directory


Change = Callable[[Any, Any], None]
"""What is done to model and tokenizer before training."""


def plain(model: Any, tokenizer: Any) -> None:
    """Transformers' Trainer pads with whatever there is."""
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token


def padding(model: Any, tokenizer: Any) -> None:
    """SFTConfig(pad_token="<|pad|>"), in a row of the embeddings that was free."""
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id


def template(model: Any, tokenizer: Any) -> None:
    """SFTConfig(chat_template_path=..., eos_token="<|endoftext|>")."""
    tokenizer.pad_token = END
    tokenizer.chat_template, tokenizer.eos_token = TEMPLATE, PAD
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id


def full(base: Path, directory: Path, change: Change) -> Path:
    """A full fine-tune."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    change(model, tokenizer)
    return train(model, tokenizer, directory)


def adapter(base: Path, directory: Path, **config: Any) -> tuple[Path, Any]:
    """A trained LoRA adapter, and the model with it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    plain(model, tokenizer)
    lora = LoraConfig(**{"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | config)
    adapted = get_peft_model(model, lora)
    return train(adapted, tokenizer, directory), adapted


def check_served(zoo: Zoo, wanted: Any) -> None:
    """What the module `tuned` answers over the base's KV is what `wanted` does, to the end of its answers."""
    pair = load_pair(zoo, "tuned")
    wanted = wanted.eval()
    moved = 0
    for prompt in PROMPTS:
        expected = reference_answer(pair.base, wanted, prompt, 12, stop_ids=end_tokens(wanted))
        served = reference_answer(pair.base, pair.module, prompt, 12, stop_ids=end_tokens(pair.module))
        assert served.tokens[: len(expected.tokens)] == expected.tokens
        assert served.logprobs[: len(expected.tokens)] == pytest.approx(expected.logprobs, abs=1e-4)
        moved += served.logprobs != reference_answer(pair.base, pair.base, prompt, 12).logprobs
    assert moved == len(PROMPTS), "it answers as the base does: the test says little"
    assert end_tokens(wanted) <= end_tokens(pair.module)


@pytest.mark.parametrize("change", [plain, padding, template])
def test_full_fine_tunes(base: Path, zoo: Zoo, tmp_path: Path, change: Change) -> None:
    saved = full(base, tmp_path / "saved", change)
    module = zoo.add("tuned", saved, allow_naive=True)
    check_served(zoo, load_model(saved))
    assert ("chat template differs" in " ".join(module.notes)) is (change is template)


def test_embeddings_with_more_rows_are_refused_for_that(base: Path, zoo: Zoo, tmp_path: Path) -> None:
    """As clone_chat_template makes them, which rounds their number up."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    padding(model, tokenizer)
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "saved")
    with pytest.raises(IncompatibleCheckpoint, match=rf"vocab_size: base {ROWS}, module 576"):
        zoo.add("tuned", tmp_path / "saved", allow_naive=True)


def test_adapters_and_what_they_are_merged_to(base: Path, zoo: Zoo, tmp_path: Path) -> None:
    saved, adapted = adapter(base, tmp_path / "saved")
    zoo.add("tuned", saved, allow_naive=True)
    whole = adapted.merge_and_unload()
    check_served(zoo, whole)
    whole.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "merged")
    zoo.add("tuned", tmp_path / "merged", allow_naive=True, replace=True)
    check_served(zoo, whole)


def test_layers_that_were_trained_whole_beside_an_adapter(base: Path, zoo: Zoo, tmp_path: Path) -> None:
    """The adapter is refused with the advice to merge it; what is merged is served, its output layer untied or not."""
    saved, adapted = adapter(base, tmp_path / "saved", target_modules=["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(IncompatibleCheckpoint, match=r"modules_to_save is .*whole layers"):
        zoo.add("tuned", saved, allow_naive=True)
    whole = adapted.merge_and_unload()
    whole.save_pretrained(tmp_path / "merged")
    zoo.add("tuned", tmp_path / "merged", allow_naive=True)
    check_served(zoo, load_model(tmp_path / "merged"))
