"""A Hugging Face checkpoint directory, read without running or unpickling anything in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.architectures import TABLE, Architecture
from psserve.zoo.checkpoints.quantisation import Quantisation, other_methods, read_quantisation
from psserve.zoo.checkpoints.quantisation_methods import FLOATS
from psserve.zoo.checkpoints.safetensors import EMBEDDINGS, HEAD, INDEX, Tensor, Weights, read_tensors
from psserve.zoo.checkpoints.tokenizer import Tokenizer, read_tokenizer
from psserve.zoo.checkpoints.unsupported import not_supported
from psserve.zoo.disk.manifest import FILE_NAME
from psserve.zoo.disk.storage import read_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
CONFIG_FILES = ("config.json", "generation_config.json")
COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)
"""Fields of config.json that must be whole numbers from 1 on."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint directory holds.

    `config` is the architecture's configuration as Transformers understands it, defaults filled in, so that two
    spellings of one configuration compare equal. `tensors` maps names to element type and shape. `quantisation` is None
    where weights are plain.
    """

    path: Path
    architecture: str
    config: dict[str, Any]
    generation_config: dict[str, Any]
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer
    quantisation: Quantisation | None = None

    @property
    def shards(self) -> list[Path]:
        """The safetensors files."""
        return sorted(self.path.glob("*.safetensors"))

    @property
    def weight_files(self) -> list[Path]:
        """The shards and their index, if there is one."""
        return [*self.shards, *self.index]

    @property
    def index(self) -> list[Path]:
        """The index that says which tensor is in which shard; none if there is no such file."""
        return [path for path in [self.path / INDEX] if path.exists()]

    @property
    def auxiliary_files(self) -> list[Path]:
        """Configuration, tokenizer and chat template: all that a server needs besides the weights."""
        return [path for name in CONFIG_FILES + TOKENIZER_FILES if (path := self.path / name).exists()]

    @property
    def dtype(self) -> str:
        """The element type of the weights, e.g. "bfloat16"; of most that are not quantised, should they differ."""
        sizes: dict[str, int] = {}
        plain = [tensor for tensor in self.tensors.values() if tensor.dtype in FLOATS]
        for tensor in plain or self.tensors.values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.data_offsets[1] - tensor.data_offsets[0]
        largest = max(sizes, key=lambda dtype: sizes[dtype])
        return {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(largest, largest)

    @property
    def head_dim(self) -> int:
        """Width of one attention head (Llama configurations may leave it out)."""
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.config["num_attention_heads"])

    @property
    def tied(self) -> bool:
        """Whether the output layer is the embeddings."""
        return bool(self.config.get("tie_word_embeddings"))

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer: the generation configuration's and the configuration's, as servers do."""
        ids: list[int] = []
        for config in (self.generation_config, self.config):
            eos = config.get("eos_token_id")
            found = eos if isinstance(eos, list) else [] if eos is None else [eos]
            if not all(type(token) is int for token in found):
                raise IncompatibleCheckpoint(f"{self.path}: eos_token_id: expected token ids, found {eos!r}")
            ids += found
        return tuple(dict.fromkeys(ids))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint directory; IncompatibleCheckpoint says what makes it one that psserve cannot serve."""
    check_directory(path)
    raw = read_json(path / "config.json")
    architecture = check_config(path, raw)
    quantisation = read_quantisation(path / "config.json", raw)
    config = understand_config(path)
    check_counts(path / "config.json", config, COUNTS + TABLE[architecture].counts)
    check_quantised(path, TABLE[architecture], quantisation)
    checkpoint = Checkpoint(
        path=path,
        architecture=architecture,
        config=config,
        generation_config=read_json(path / "generation_config.json"),
        tensors=read_tensors(path),
        tokenizer=read_tokenizer(path),
        quantisation=quantisation,
    )
    check_end_tokens(path, config["vocab_size"], checkpoint.eos_token_ids)
    return checkpoint


def check_directory(path: Path) -> None:
    """Check that `path` is a directory of safetensors weights with a configuration, and nothing that would be code."""
    if not path.is_dir():
        what = "not a directory" if path.exists() else "not found"
        raise IncompatibleCheckpoint(f"{path}: {what}: give the directory of a checkpoint")
    if (path / "adapter_config.json").exists():
        raise IncompatibleCheckpoint(f"{path}: a LoRA adapter, not a full checkpoint: give the model it was made for")
    if not (path / "config.json").exists():
        raise IncompatibleCheckpoint(f"{path}: no config.json: give the directory of a checkpoint")
    code = sorted(file.name for file in path.glob("*.py"))
    if code:
        raise IncompatibleCheckpoint(f"{path}: brings its own code ({code[0]}), which psserve never runs: remove it")
    if any(path.glob("*.gguf")):
        raise IncompatibleCheckpoint(f"{path}: GGUF {other_methods()}")
    if not any(path.glob("*.safetensors")):
        raise IncompatibleCheckpoint(f"{path}: no *.safetensors: pickled weights are refused, convert them first")
    check_readable(path)
    odd = sorted(file.name for file in path.glob("*.safetensors") if not FILE_NAME.fullmatch(file.name))
    if odd:
        raise IncompatibleCheckpoint(f"{path / odd[0]}: rename it: file names may hold A-Z a-z 0-9 . _ - alone")


def check_readable(directory: Path) -> None:
    """Check that each file that will be read is one, and may be read."""
    for path in sorted([*directory.glob("*.safetensors"), *directory.glob("*.json"), *directory.glob("*.jinja")]):
        if not path.is_file():
            what = "a link to nothing" if path.is_symlink() else "not a file"
            raise IncompatibleCheckpoint(f"{path}: {what}: copy the file there")
        if not os.access(path, os.R_OK):
            raise IncompatibleCheckpoint(f"{path}: may not be read by you: change its permissions (chmod a+r)")


def check_config(path: Path, config: dict[str, Any]) -> str:
    """The architecture that config.json names, if it is one that can be served."""
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in read_json(path / name):
            raise IncompatibleCheckpoint(
                f"{path / name}: auto_map asks to run code, which psserve never does: remove it"
            )
    architectures = config.get("architectures")
    if not (isinstance(architectures, list) and len(architectures) == 1 and isinstance(architectures[0], str)):
        raise IncompatibleCheckpoint(f"{path / 'config.json'}: architectures: expected a list of one name")
    if architectures[0] not in TABLE:
        raise IncompatibleCheckpoint(f"{path}: {not_supported(architectures[0])}")
    return architectures[0]


def understand_config(path: Path) -> dict[str, Any]:
    """config.json as Transformers reads it (old and new spellings become one, defaults are filled in)."""
    from psserve import torchvision_ops

    torchvision_ops.declare_missing()
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # Transformers raises whatever the wrong field provokes: all of it is the file's fault
        reason = " ".join(str(error).split())
        raise IncompatibleCheckpoint(f"{path / 'config.json'}: Transformers refuses it: {reason}") from error
    understood: dict[str, Any] = config.to_dict()
    return understood


def check_counts(path: Path, config: dict[str, Any], fields: tuple[str, ...]) -> None:
    """Raise IncompatibleCheckpoint unless the sizes in the configuration file at `path` can be sizes."""
    for field in fields:
        value = config.get(field)
        if type(value) is not int or value < 1:
            raise IncompatibleCheckpoint(f"{path}: {field} is {value!r}, not a number from 1 on: correct it")
    if type(config.get("head_dim")) not in (int, type(None)):
        raise IncompatibleCheckpoint(f"{path}: head_dim is {config['head_dim']!r}, not a number: correct it")


def check_quantised(path: Path, row: Architecture, quantisation: Quantisation | None) -> None:
    """Raise IncompatibleCheckpoint if quantised weights of this architecture cannot be served."""
    if quantisation and not row.quantised:
        raise IncompatibleCheckpoint(
            f"{path}: quantised ({quantisation}), which cannot be served of {row.name}: give the unquantised checkpoint"
        )


def head_differs(checkpoint: Checkpoint) -> bool:
    """Whether the files hold an output layer and embeddings that are not equal. Both are read."""
    weights = Weights(checkpoint.shards)
    return HEAD in weights and EMBEDDINGS in weights and not weights.equal(HEAD, EMBEDDINGS)


def check_head(checkpoint: Checkpoint) -> None:
    """Raise IncompatibleCheckpoint if servers would drop an output layer that Transformers uses."""
    if checkpoint.tied and head_differs(checkpoint):
        raise IncompatibleCheckpoint(
            f"{checkpoint.path}: config.json says tie_word_embeddings, and {HEAD} is not {EMBEDDINGS}: servers would "
            "drop it: set tie_word_embeddings to false there, or remove the tensor if it should be the embeddings"
        )


def check_end_tokens(directory: Path, vocab_size: int, tokens: tuple[int, ...]) -> None:
    """Raise IncompatibleCheckpoint if a token that ends an answer is none of the vocabulary's."""
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise IncompatibleCheckpoint(
                f"{directory}: eos_token_id {token}: the vocabulary has tokens 0 to {vocab_size - 1}: correct it"
            )
