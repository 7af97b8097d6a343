from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from psserve.errors import (
    DataError,
    IncompatibleCheckpoint,
    ManifestError,
    ModuleExists,
    PsserveError,
    TrainingError,
    UsageError,
)
from psserve.training import finetune as finetuning
from psserve.training.checks import check_disk_space, length_limit, load_data
from psserve.training.config import FinetuneConfig, LoraConfig
from psserve.training.finetune import finetune, load_models
from psserve.training.hf import TrainingArguments
from psserve.training.icarus import load_icarus
from psserve.training.models import check_targets, load_base
from psserve.training.progress import RunLog, read_metrics
from psserve.training.reference import load_model, load_pair
from psserve.training.run_folder import data_hash
from psserve.training.trainer import ModuleTrainer, training_arguments
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.architectures import TABLE
from psserve.zoo.disk.transactions import REBUILT
from psserve.zoo.stores import checkpoint_files
from psserve.zoo.synthetic.zoo import build_zoo, new_model
from tests.training.plain import plain_icarus_loss, plain_loss


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_zoo(tmp_path_factory.mktemp("pristine") / "zoo", modules=["alpha"], num_hidden_layers=2).path


@pytest.fixture
def zoo(pristine: Path, tmp_path: Path) -> Zoo:
    return Zoo.open(Path(shutil.copytree(pristine, tmp_path / "zoo")))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    turns = [(a, b, f"{a} and {b}", str(a + b)) for a in range(5) for b in range(5)]
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"What is {question}?"},
                {"role": "assistant", "content": answer},
                {"role": "user", "content": f"Twice {question}?"},
                {"role": "assistant", "content": str(2 * (a + b))},
            ]
        }
        for a, b, question, answer in turns
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def config(data: Path, **options: Any) -> FinetuneConfig:
    batch = {"batch_size": 4, "accumulation": 1}
    defaults: dict[str, Any] = {"steps": 8, "learning_rate": 2e-3, **batch, "save_every": 3, "log_every": 2}
    return FinetuneConfig(**{"name": "sums", "data": (data,), **defaults, **options})


def weights(zoo: Zoo, name: str = "sums") -> dict[str, torch.Tensor]:
    files = checkpoint_files(zoo.base, zoo.module(name), zoo.path / REBUILT / name)
    return load_file(files["model.safetensors"])


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


LORA = LoraConfig(rank=4)
KINDS = pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])


@KINDS
def test_a_module_learns_to_answer_over_the_bases_cache(zoo: Zoo, data: Path, lora: LoraConfig | None) -> None:
    run = config(data, lora=lora, steps=30, learning_rate=1e-2 if lora else 2e-3)
    base = load_model(zoo.base.path)
    conversations = load_data(zoo.base, run)
    before = plain_loss(base, base, conversations)
    finetune(zoo, run)
    assert plain_loss(base, load_pair(zoo, "sums").module, conversations) < before - 2


def test_the_module_has_a_complete_training_record(zoo: Zoo, data: Path) -> None:
    result = finetune(zoo, config(data, seed=5))
    module = zoo.module("sums")
    assert module.kind == "cache-conditioned"
    record = module.training
    assert record is not None
    assert record.base_fingerprint == zoo.base.fingerprint
    assert record.seed == 5
    assert record.hyperparameters["learning_rate"] == 2e-3
    assert record.hyperparameters["steps"] == 8
    assert record.metrics == {"loss": result.loss, "steps": 8}
    assert record.data_hash is not None
    assert record.versions["torch"] == torch.__version__


def test_the_run_folder_keeps_what_a_reader_wants(zoo: Zoo, data: Path) -> None:
    run = finetune(zoo, config(data, lora=LORA)).run
    assert {path.name for path in run.iterdir()} == {"run.json", "metrics.jsonl", "loss.png", "adapter"}
    assert [entry["step"] for entry in read_metrics(run / "metrics.jsonl")] == [1, 2, 4, 6, 8]
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_adapter_of_a_run_can_be_added_again_with_its_record(zoo: Zoo, data: Path) -> None:
    run = finetune(zoo, config(data, lora=LORA)).run
    again = zoo.add("again", run)
    assert (again.kind, again.training) == ("cache-conditioned", zoo.module("sums").training)


def test_an_adapter_by_icarus_rule_learns_and_stays_out_of_the_zoo(zoo: Zoo, data: Path) -> None:
    run = config(data, lora=LORA, method="icarus", steps=30, learning_rate=1e-2)
    base, conversations = load_model(zoo.base.path), load_data(zoo.base, run)
    before = plain_icarus_loss(base, base, conversations)
    result = finetune(zoo, run)
    assert result.module is None
    assert [module.name for module in zoo.modules()] == ["alpha"]
    adapter = result.run / "adapter"
    layers = {name.split(".")[-3] for name in load_file(adapter / "adapter_model.safetensors")}
    assert layers == {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    pair = load_icarus(zoo.base, adapter)
    pair.module.set_attn_implementation("sdpa")
    assert plain_icarus_loss(pair.base, pair.module, conversations) < before - 2
    with pytest.raises(IncompatibleCheckpoint, match=r"trained by ICaRus' rule .* without --icarus to serve it"):
        zoo.add("again", result.run, allow_naive=True)


def test_a_lora_module_stays_an_adapter_unless_it_is_to_be_merged(zoo: Zoo, data: Path) -> None:
    finetune(zoo, config(data, lora=LORA))
    finetune(zoo, config(data, lora=LoraConfig(rank=4, merge=True), name="merged"))
    stores = [zoo.module(name).store for name in ("sums", "merged")]
    assert stores == ["adapter", "copy"]
    kept, merged = weights(zoo), weights(zoo, "merged")
    for name, tensor in merged.items():
        torch.testing.assert_close(kept[name], tensor, rtol=1e-6, atol=1e-6)


def test_the_base_is_not_touched(zoo: Zoo, data: Path) -> None:
    before = files(zoo.base.path)
    finetune(zoo, config(data, lora=LORA))
    assert files(zoo.base.path) == before


@KINDS
def test_a_run_stopped_by_a_signal_and_resumed_gives_the_same_weights(
    zoo: Zoo, data: Path, lora: LoraConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune(zoo, config(data, name="whole", lora=lora))

    def interrupt(log: RunLog, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)  # as launchers do after Ctrl-C

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "on_step_begin", interrupt, raising=False)
        with pytest.raises(TrainingError, match="stopped after step 5 of 8: go on with --resume"):
            finetune(zoo, config(data, lora=lora))
    result = finetune(zoo, config(data, lora=lora, resume=True))
    assert same(weights(zoo), weights(zoo, "whole"))
    assert [entry["step"] for entry in read_metrics(result.run / "metrics.jsonl")] == [1, 2, 4, 6, 8]


def test_a_run_that_died_is_resumed_from_its_last_complete_checkpoint(
    zoo: Zoo, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune(zoo, config(data, name="whole"))

    def die(log: RunLog, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "on_step_begin", die, raising=False)
        with pytest.raises(KeyboardInterrupt):
            finetune(zoo, config(data))
    half = zoo.path / ".training" / "sums" / "checkpoints" / "checkpoint-5"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half of it")
    finetune(zoo, config(data, resume=True))
    assert same(weights(zoo), weights(zoo, "whole"))


def test_a_run_whose_import_failed_is_resumed_without_training(
    zoo: Zoo, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "write_checkpoint", full)
        with pytest.raises(OSError, match="No space left"):
            finetune(zoo, config(data))
    assert [module.name for module in zoo.modules()] == ["alpha"]
    monkeypatch.setattr(finetuning, "train_to_end", None)
    assert finetune(zoo, config(data, resume=True)).steps == 8


def test_a_run_cannot_be_resumed_as_another(zoo: Zoo, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "add_trained_module", lambda *_: None)
    monkeypatch.setattr(finetuning, "result", lambda *_: None)
    finetune(zoo, config(data))
    with pytest.raises(TrainingError, match=r"cannot resume: learning_rate was 0\.002 and is now 0\.001"):
        finetune(zoo, config(data, learning_rate=1e-3, resume=True))


def test_same_seed_same_weights_other_seed_other_weights(zoo: Zoo, data: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        finetune(zoo, config(data, name=name, seed=seed))
    assert same(weights(zoo, "one"), weights(zoo, "again"))
    assert not same(weights(zoo, "one"), weights(zoo, "two"))


def test_accumulated_small_batches_are_one_large_batch(zoo: Zoo, data: Path) -> None:
    finetune(zoo, config(data, name="large", batch_size=4, steps=3))
    finetune(zoo, config(data, name="small", batch_size=2, accumulation=2, steps=3))
    large, small = weights(zoo, "large"), weights(zoo, "small")
    difference = max(float((large[name] - small[name]).abs().max()) for name in large)
    moved = max(float((large[name] - base).abs().max()) for name, base in base_weights(zoo).items())
    assert difference < moved / 20


def test_gradients_are_not_clipped_unless_that_is_asked(zoo: Zoo, data: Path) -> None:
    finetune(zoo, config(data, name="free", steps=3, log_every=1))
    finetune(zoo, config(data, name="above", steps=3, log_every=1, max_grad_norm=1e6))
    finetune(zoo, config(data, name="clipped", steps=3, log_every=1, max_grad_norm=1e-3))
    assert same(weights(zoo, "free"), weights(zoo, "above"))
    assert not same(weights(zoo, "free"), weights(zoo, "clipped"))
    first = [read_metrics(zoo.path / ".training" / name / "metrics.jsonl")[0] for name in ("free", "clipped")]
    assert first[0]["grad_norm"] == first[1]["grad_norm"] > 1e-3


def test_defaults_are_the_papers(zoo: Zoo, data: Path) -> None:
    finetune(zoo, FinetuneConfig(name="sums", data=(data,)))
    record = zoo.module("sums").training
    assert record is not None
    assert record.hyperparameters == {
        "epochs": 1.0,
        "warmup": 0.03,
        "weight_decay": 0.1,
        "batch_size": 8,
        "accumulation": 2,
        "max_length": 1024,
        "dtype": "float32",
        "learning_rate": 2e-5,
        "processes": 1,
    }
    assert record.metrics["steps"] == 2, "25 conversations, 16 in a step"


def test_a_base_of_a_shorter_context_shortens_the_longest_conversation(data: Path, tmp_path: Path) -> None:
    short = build_zoo(tmp_path / "short", modules=(), num_hidden_layers=1, max_position_embeddings=300)
    assert length_limit(short.base, config(data)) == 300


def base_weights(zoo: Zoo) -> dict[str, torch.Tensor]:
    return load_file(zoo.base.path / "model.safetensors")


def test_gradient_checkpointing_gives_the_same_weights(zoo: Zoo, data: Path) -> None:
    finetune(zoo, config(data, name="plain"))
    finetune(zoo, config(data, name="checkpointed", gradient_checkpointing=True))
    assert same(weights(zoo, "plain"), weights(zoo, "checkpointed"))


def test_bfloat16_trains_in_the_bases_format(zoo: Zoo, data: Path) -> None:
    finetune(zoo, config(data, dtype="bfloat16"))
    assert {tensor.dtype for tensor in weights(zoo).values()} == {torch.float32}


def test_method_full_trains_on_its_own_cache_and_is_naive(zoo: Zoo, data: Path) -> None:
    run = config(data, method="full", steps=30)
    conversations = load_data(zoo.base, run)
    finetune(zoo, run)
    pair = load_pair(zoo, "sums")
    assert zoo.module("sums").kind == "naive"
    assert plain_loss(pair.module, pair.module, conversations) < plain_loss(pair.base, pair.module, conversations) - 0.2


@KINDS
def test_the_frozen_base_costs_no_optimizer_memory(
    zoo: Zoo, data: Path, tmp_path: Path, lora: LoraConfig | None
) -> None:
    run = config(data, lora=lora)
    base, module = load_models(zoo.base, run, torch.float32)
    arguments: TrainingArguments = training_arguments(run, tmp_path / "out", torch.float32)
    trainer = ModuleTrainer(base, module, args=arguments, train_dataset=load_data(zoo.base, run))
    trainer.train()
    trained = {id(tensor) for group in trainer.optimizer.param_groups for tensor in group["params"]}
    assert trained == {id(tensor) for tensor in module.parameters() if tensor.requires_grad}
    assert trained.isdisjoint(id(tensor) for tensor in base.parameters())
    assert all(tensor.grad is None for tensor in base.parameters())


def test_a_lora_module_shares_the_bases_frozen_weights(zoo: Zoo, data: Path) -> None:
    base, module = load_models(zoo.base, config(data, lora=LORA), torch.float32)
    frozen = {tensor.data_ptr() for tensor in module.parameters() if not tensor.requires_grad}
    assert frozen == {tensor.data_ptr() for tensor in base.parameters()}


def test_lora_changes_only_its_targets(zoo: Zoo, data: Path) -> None:
    finetune(zoo, config(data, lora=LoraConfig(rank=2, targets=("q_proj", "v_proj"))))
    merged, base = weights(zoo), base_weights(zoo)
    changed = {name.split(".")[-2] for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {"q_proj", "v_proj"}


def test_an_output_layer_that_is_the_embeddings_is_no_target() -> None:
    tied, untied = (new_model("qwen3", {"tie_word_embeddings": tie}) for tie in (True, False))
    check_targets(untied, ("lm_head",))
    with pytest.raises(TrainingError, match="'lm_head': the base has no such layer of its own"):
        check_targets(tied, ("lm_head",))


def test_overwrite_replaces_the_module_and_the_run(zoo: Zoo, data: Path) -> None:
    finetune(zoo, config(data))
    first = weights(zoo)
    finetune(zoo, config(data, seed=1, overwrite=True))
    assert not same(weights(zoo), first)
    assert [module.name for module in zoo.modules()] == ["alpha", "sums"]


def test_a_replacing_run_that_was_stopped_is_resumed(zoo: Zoo, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finetune(zoo, config(data))
    first = weights(zoo)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "add_trained_module", interrupt)
        with pytest.raises(KeyboardInterrupt):
            finetune(zoo, config(data, seed=1, overwrite=True))
    assert same(weights(zoo), first)
    finetune(zoo, config(data, seed=1, resume=True))
    assert not same(weights(zoo), first)


def test_the_record_is_of_the_data_as_it_was_read(zoo: Zoo, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = data_hash([data])
    monkeypatch.setattr(RunLog, "on_step_begin", lambda *_, **__: data.unlink(missing_ok=True), raising=False)
    finetune(zoo, config(data))
    training = zoo.module("sums").training
    assert training is not None
    assert training.data_hash == before


def test_the_record_has_the_arithmetic_and_the_number_of_processes(zoo: Zoo, data: Path) -> None:
    finetune(zoo, config(data))
    training = zoo.module("sums").training
    assert training is not None
    assert (training.hyperparameters["dtype"], training.hyperparameters["processes"]) == ("float32", 1)


def test_parts_of_weights_are_refused_before_training(zoo: Zoo, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT")
    with pytest.raises(TrainingError, match="SHARDED_STATE_DICT: set FULL_STATE_DICT"):
        finetune(zoo, config(data))


def test_a_base_in_bfloat16_keeps_its_rotary_frequencies(zoo: Zoo) -> None:
    base = load_base(zoo.base.path, torch.bfloat16)
    assert {weight.dtype for weight in base.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in base.buffers()} == {torch.float32}


def spoil_base(zoo: Zoo, data: Path) -> FinetuneConfig:
    path = zoo.base.path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return config(data)


def no_template(zoo: Zoo, data: Path) -> FinetuneConfig:
    template = zoo.base.path / "chat_template.jinja"
    template.unlink()
    manifest = zoo.path / "zoo.toml"
    entries = manifest.read_text().split("[[base.files]]")
    manifest.write_text("[[base.files]]".join(entry for entry in entries if template.name not in entry))
    return config(data)


def write(data: Path, content: bytes, **options: Any) -> FinetuneConfig:
    data.write_bytes(content)
    return config(data, **options)


def conversation_of(answer: str) -> bytes:
    return json.dumps({"prompt": "Say it.", "completion": answer.strip()}).encode() + b"\n"


QUESTION = b'{"messages": [{"role": "user", "content": "Hello?"}]}\n'
BAD = {
    "base changed": (TrainingError, "changed since the zoo was made", spoil_base),
    "no chat template": (DataError, "no chat template", no_template),
    "no assistant turn": (DataError, "no assistant turn", lambda zoo, data: write(data, QUESTION)),
    "turn too long": (DataError, "longer than 10", lambda zoo, data: config(data, max_length=10)),
    "longer than the default": (
        DataError,
        r"longer than 1024: shorten it, or raise --max-length",
        lambda zoo, data: write(data, conversation_of("word " * 2000)),
    ),
    "longer than the context": (UsageError, "context of 4096", lambda zoo, data: config(data, max_length=5000)),
    "empty data": (DataError, "no conversations", lambda zoo, data: write(data, b"")),
    "not UTF-8": (DataError, "not UTF-8", lambda zoo, data: write(data, b"\xff\n")),
    "no data file": (DataError, "No such file", lambda zoo, data: config(data.with_name("none.jsonl"))),
    "name exists": (ModuleExists, "taken", lambda zoo, data: config(data, name="alpha")),
    "name of the base": (ModuleExists, "base", lambda zoo, data: config(data, name="qwen3-tiny", overwrite=True)),
    "alias exists": (ModuleExists, "taken", lambda zoo, data: config(data, aliases=("alpha",), overwrite=True)),
    "bad name": (UsageError, "module name", lambda zoo, data: config(data, name="a b")),
    "no such LoRA target": (
        TrainingError,
        "'x_proj': the base has no such layer of its own: choose of down_proj",
        lambda zoo, data: config(data, lora=LoraConfig(targets=("q_proj", "x_proj"))),
    ),
    "nothing to resume": (TrainingError, "no run to resume", lambda zoo, data: config(data, resume=True)),
    "folder of nobody": (UsageError, "leads nowhere", lambda zoo, data: config(data, out=Path("~no-such-user/run"))),
    "folder that is not UTF-8": (UsageError, "not UTF-8", lambda zoo, data: config(data, out=data.parent / "\udcff")),
    "task that is not UTF-8": (UsageError, "not UTF-8", lambda zoo, data: config(data, task="\udcff")),
    "folder of something else": (
        TrainingError,
        "not empty, and no run",
        lambda zoo, data: config(data, out=data.parent, overwrite=True),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(zoo: Zoo, data: Path, tmp_path: Path, case: str) -> None:
    error, message, prepare = BAD[case]
    run = prepare(zoo, data)
    before = files(tmp_path)
    with pytest.raises(error, match=message) as raised:
        finetune(Zoo.open(zoo.path), run)
    assert "\n" not in str(raised.value)
    assert files(tmp_path) == before


def test_a_missing_base_is_an_error(zoo: Zoo) -> None:
    shutil.rmtree(zoo.base.path)
    with pytest.raises((ManifestError, PsserveError), match="base"):
        Zoo.open(zoo.path)


def test_a_disk_without_room_is_found_before_training(
    zoo: Zoo, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match=r"0\.0 GB needed: make room"):
        finetune(zoo, config(data))
    assert files(tmp_path) == before


def test_room_is_asked_for_what_the_zoo_will_merge(
    zoo: Zoo, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000 if path == zoo.path else 10**12))
    wanted = config(data, out=run, lora=LoraConfig(rank=4))
    check_disk_space(run, zoo, wanted)
    row = TABLE[zoo.base.architecture]
    monkeypatch.setitem(TABLE, zoo.base.architecture, replace(row, adapters=()))
    with pytest.raises(TrainingError, match=f"^{zoo.path}: .* needed: make room"):
        check_disk_space(run, zoo, wanted)


@pytest.mark.parametrize("place", ["run", "zoo"])
def test_the_disks_of_run_and_zoo_are_both_looked_at(
    zoo: Zoo, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    full = run if place == "run" else zoo.path
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000 if path == full else 10**12))
    with pytest.raises(TrainingError, match=f"^{full}: .* needed: make room"):
        finetune(zoo, config(data, out=run))


def test_a_disk_that_fills_up_while_the_module_is_written_is_explained(
    zoo: Zoo, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        usage = shutil.disk_usage(zoo.path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(finetuning, "write_checkpoint", fill)
    with pytest.raises(TrainingError, match="disk full: make room, then go on with --resume"):
        finetune(zoo, config(data))


def test_a_loss_that_is_not_finite_never_reaches_the_zoo(zoo: Zoo, data: Path) -> None:
    with pytest.raises(TrainingError, match="lower --learning-rate"):
        finetune(zoo, config(data, learning_rate=1e30))
    assert [module.name for module in zoo.modules()] == ["alpha"]


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"epochs": -1.0}, {"batch_size": 0}, {"warmup": 1.0}, {"resume": True, "overwrite": True}]
)
def test_options_that_make_no_sense_are_refused(data: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        config(data, **options)
