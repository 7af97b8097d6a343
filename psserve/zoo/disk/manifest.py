"""`zoo.toml` and `module.toml`: their fields, how they are read and written, and the names and hashes in them.

A manifest is the last file written, so its presence means that what it describes is complete.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tomli_w
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from psserve.errors import ManifestError, ModuleExists, UsageError
from psserve.zoo.disk.progress import SILENT, Progress
from psserve.zoo.disk.storage import write_atomically

SCHEMA_VERSION = 1
"""The newest that this psserve reads and the one it writes."""
ZOO_MANIFEST = "zoo.toml"
MODULE_MANIFEST = "module.toml"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
RESERVED = frozenset({"base", "all", "auto", "router", "prefill"})
"""Words that the command line, the router or the fleet give a meaning of their own."""
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
OLD_HASH = re.compile(rb"^blake2b = ", re.MULTILINE)
CHUNK = 4 << 20
"""Bytes read at a time: read into one buffer, which keeps memory small and is no slower than mapping the file."""
Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
FileName = Annotated[str, StringConstraints(pattern=f"^{FILE_NAME.pattern}$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Store = Literal["copy", "link", "delta", "adapter"]
"""How a module's weights are kept: in its directory, elsewhere, as what differs from the base (compressed), or as the
LoRA adapter that they are."""


class Record(BaseModel):
    """Base of all that is read from a file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(Record):
    """One file of a checkpoint: its size in bytes and the BLAKE3 of its content."""

    name: FileName
    size: int = Field(ge=0)
    blake3: Hash


class LinkRecord(Record):
    """Where a file is that a module uses but does not own, and when it had been changed last."""

    path: str = Field(pattern="^/")
    modified_ns: int
    """Unix time in nanoseconds. Another time makes psserve hash the file before it is used."""


class BaseRecord(Record):
    """The zoo's base: where it is, what it is, and the facts that servers and router need."""

    name: Name
    source: str = Field(min_length=1)
    """A directory (absolute, or relative to the zoo) or a Hub id."""
    revision: str | None = None
    """The Hub commit, where `source` is a Hub id."""
    fingerprint: Hash
    architecture: str
    dtype: str
    """The element type of its weights, of those that are not quantised."""
    quantisation: str | None = None
    """How they are quantised, in words; None: not."""
    vocab_size: int = Field(gt=0)
    context_length: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    eos_token_ids: tuple[int, ...] = ()
    checks: int = Field(default=0, ge=0)
    """Which checks of what servers compute it has passed (`CHECKS` in psserve/zoo/checkpoints/architectures.py)."""
    files: tuple[FileRecord, ...]


class ZooManifest(Record):
    """`zoo.toml`."""

    schema_version: Literal[1] = 1
    base: BaseRecord


class TrainingRecord(Record):
    """How a module was trained: `psserve_training.json` in a checkpoint, `[training]` in `module.toml`."""

    method: Literal["cache-conditioned", "icarus", "full"]
    base_fingerprint: Hash
    """The base whose KV cache the module was trained on (cache-conditioned, icarus) or started from (full)."""
    data_hash: Hash | None = None
    """Of the data files' contents, in order."""
    hyperparameters: dict[str, bool | int | float | str] = {}
    seed: int | None = None
    versions: dict[str, str] = {}
    """Package -> version."""
    metrics: dict[str, float] = {}
    """What was measured, e.g. the loss (nats per answer token)."""


class EvaluationRecord(Record):
    """What `psserve evaluate` found: how many held-out items a module answered right, under which conditions."""

    date: int = Field(ge=0)
    """Unix time, in seconds."""
    scorer: str
    """What made an answer right, e.g. "number"."""
    data_hash: Hash
    """Of the data files' contents, in order."""
    items: int = Field(gt=0)
    right: int = Field(ge=0)
    max_tokens: int = Field(gt=0)
    """Longest answer allowed."""
    how: Literal["reference", "fleet"]
    """Who answered: the Transformers computation of the split, or a running fleet."""

    @model_validator(mode="after")
    def check_counts(self) -> EvaluationRecord:
        """Refuse more right answers than items."""
        if self.right > self.items:
            raise ValueError(f"{self.right} right answers of {self.items} items")
        return self

    @property
    def conditions(self) -> tuple[str, str, int, int, str]:
        """All but the date and what was found: what two evaluations have in common if one repeats the other."""
        return self.scorer, self.data_hash, self.items, self.max_tokens, self.how

    @property
    def share(self) -> float:
        """Accuracy, 0 to 1."""
        return self.right / self.items


class AdapterShape(Record):
    """What servers must know of an adapter before they load its serving form."""

    rank: int = Field(gt=0)
    """The one of all its layers there."""
    targets: tuple[str, ...] = Field(min_length=1)
    """The names of the layers there, e.g. "q_proj", sorted."""
    bytes: int = Field(gt=0)
    """Size of its weights there."""


class SuccessionRecord(Record):
    """A version took the module's place."""

    version: int = Field(ge=1)
    date: int = Field(ge=0)
    """Unix time, in seconds."""


class ModuleManifest(Record):
    """`module.toml`."""

    schema_version: Literal[1] = 1
    name: Name
    task: str = ""
    examples: tuple[str, ...] = ()
    aliases: tuple[Name, ...] = ()
    version: int = Field(default=1, ge=1)
    """Of its weights: every import under its name has a number of its own (see versions.py)."""
    previous: int | None = None
    """The version that this one took the place of."""
    succession: tuple[SuccessionRecord, ...] = ()
    """Which versions have taken the module's place, oldest first. What it was before the first is not known."""
    kind: Literal["cache-conditioned", "naive"]
    created: int = Field(ge=0)
    """Unix time of the import, in seconds."""
    base_fingerprint: Hash
    notes: tuple[str, ...] = ()
    """What was unusual about the import, e.g. a chat template that differs from the base's."""
    training: TrainingRecord | None = None
    evaluations: tuple[EvaluationRecord, ...] = ()
    """Oldest first. Another import of the module starts anew: its weights are others."""
    dtype: str | None = None
    """The element type of its weights, of those that are not quantised; None: the base's."""
    quantisation: str | None = None
    """How they are quantised, in words; "none": not, unlike the base's; None: as the base's."""
    origin: str = ""
    """What was imported, in words, e.g. "LoRA adapter /home/ann/math (rank 16)"."""
    store: Store = "copy"
    files: tuple[FileRecord, ...]
    """The complete checkpoint as it is served, whether its files are stored as such or not; an adapter's two files."""
    stored: tuple[FileRecord, ...] = ()
    """The files in the module's directory that are not such a file itself (store "delta")."""
    settings: tuple[FileRecord, ...] = ()
    """The files in the module's directory that are served in place of the base's of that name."""
    links: dict[FileName, LinkRecord] = {}
    """File of `files` -> where it is (store "link")."""
    adapter: AdapterShape | None = None
    """Of the serving form of `files`, which then are PEFT's two (store "adapter")."""

    @model_validator(mode="after")
    def check_store(self) -> ModuleManifest:
        """Refuse a store without the fields that go with it."""
        if self.links.keys() != {file.name for file in self.files if self.store == "link"}:
            raise ValueError(f"store is {self.store!r}, and links are those of other files")
        if bool(self.stored) != (self.store == "delta"):
            raise ValueError(f"store is {self.store!r}, and stored has {len(self.stored)} files")
        if (self.adapter is not None) != (self.store == "adapter"):
            raise ValueError(f"store is {self.store!r}, and adapter is {'not ' if self.adapter else ''}left out")
        return self


M = TypeVar("M", bound=Record)


def read_manifest(path: Path, model: type[M]) -> M:
    """Parse the TOML file `path` as `model`; ManifestError says which field is wrong."""
    try:
        content = path.read_bytes()
        if OLD_HASH.search(content):
            raise ManifestError(
                f"{path}: hashed with blake2b, before psserve's first release: make the zoo again with `psserve init`"
            )
        document = tomllib.loads(content.decode())
        version = document.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ManifestError(f"{path}: schema version {version} is newer than this psserve knows: upgrade psserve")
        return model.model_validate(document)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}: repair or restore the file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: not TOML ({error}): repair or restore the file") from None
    except RecursionError:
        raise ManifestError(f"{path}: nested too deeply: repair or restore the file") from None
    except ValidationError as error:
        raise ManifestError(f"{path}: {first_problem(error)}: repair or restore the file") from None


def write_manifest(path: Path, manifest: ZooManifest | ModuleManifest) -> None:
    """Write `manifest` as TOML, atomically."""
    document = manifest.model_dump(mode="json", exclude_none=True)
    write_atomically(path, tomli_w.dumps(document, multiline_strings=False).encode())


def first_problem(error: ValidationError) -> str:
    """The first problem pydantic found, in one line: field, then what is wrong with it."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "document"
    return f"{field}: {first['msg']}"


def check_name(name: str, what: str = "module name") -> str:
    """Return `name` if it may be used; UsageError otherwise."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{what} {name[:80]!r}: use 1 to 64 characters of a-z 0-9 . _ - and start with a letter or a digit"
        )
    if name in RESERVED:
        raise UsageError(f"{what} {name!r} is reserved ({', '.join(sorted(RESERVED))}): choose another")
    return name


def check_text(text: str) -> None:
    """Raise UsageError unless `text` can stand in a manifest: file names and arguments need not be UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r}: not UTF-8, as manifests are: call it something else") from None


def check_free(wanted: Iterable[str], base: str, taken: dict[str, str]) -> None:
    """Raise ModuleExists if one of `wanted` (a name and its aliases) is the base's, a module's (`taken`), or repeated.

    `taken` maps each name and alias in use to the module that has it.
    """
    seen: set[str] = set()
    for name in wanted:
        if name == base:
            raise ModuleExists(f"{name!r} is the name of the zoo's base: choose another")
        if name in taken:
            replace = f" (`psserve update-model {name}` replaces its weights)" if taken[name] == name else ""
            raise ModuleExists(f"{name!r} is taken by module {taken[name]!r}: choose another{replace}")
        if name in seen:
            raise ModuleExists(f"{name!r} is given twice: name and aliases must differ")
        seen.add(name)


def default_base_name(source: str) -> str:
    """A base's name made of the last part of its path or Hub id, e.g. "Qwen/Qwen3-0.6B" -> "qwen3-0.6b"."""
    last = source.rstrip("/").rpartition("/")[2].lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", last).lstrip("._-")[:64]
    return f"{name}-model" if name in RESERVED else name


def new_hash() -> blake3:
    """A hash to be fed; `hexdigest()` gives the 64 characters of a manifest."""
    return blake3(max_threads=blake3.AUTO)


def hash_bytes(content: bytes) -> str:
    """BLAKE3 of a short content, in hex."""
    return blake3(content).hexdigest()


def hash_file(path: Path, progress: Progress = SILENT) -> str:
    """BLAKE3 of a file's content, in hex."""
    digest, buffer = new_hash(), bytearray(CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(view[:size])
            progress.advance(size)
    return digest.hexdigest()


def record_files(files: Iterable[Path], progress: Progress = SILENT, what: str = "hashing") -> tuple[FileRecord, ...]:
    """Names, sizes and hashes of files."""
    sizes = {file: file.stat().st_size for file in files}
    progress.stage(what, sum(sizes.values()))
    return tuple(
        FileRecord(name=file.name, size=size, blake3=hash_file(file, progress)) for file, size in sizes.items()
    )
