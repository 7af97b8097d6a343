"""Every error psserve raises on purpose.

    PsserveError
    |-- UsageError                 the command or option makes no sense (exit status 2)
    |-- ZooError
    |   |-- ZooNotFound            no zoo at the given place
    |   |-- ManifestError          zoo.toml or module.toml cannot be read as what it should be
    |   |-- UnknownModule          no module of that name or alias
    |   |-- ModuleExists           the name or alias is taken
    |   |-- IncompatibleCheckpoint the checkpoint cannot serve over this base's KV cache
    |   |-- VersionRefused         a version of a module is not as accurate as was required
    |   `-- ZooBusy                another command is changing the zoo
    |-- EngineError
    |   |-- UnsupportedSglang      SGLang's version is not one psserve was tested with
    |   |-- ChangedSglang          SGLang's functions or fields are not those psserve was tested with
    |   |-- HookMissing            a function psserve must hook is not hooked
    |   |-- ImpureTree             a server's radix tree holds something that it must not
    |   `-- ChangedLease           pages that a prefill server had lent were written to
    |-- TrainingError
    |   `-- DataError              a data file cannot be trained or evaluated on
    |-- BenchError                 a benchmark cannot be run as asked, or its files cannot be read
    |   `-- TraceError             a trace file has a line that cannot be replayed
    |-- FleetError
    |   |-- PlanError              the options cannot become a fleet on this machine
    |   |   `-- NoRoom             a machine has not got the GPUs or the memory for its servers
    |   |-- StartError             a server did not become ready
    |   |   `-- HostLost           the host that it should run on cannot be reached
    |   |-- AlreadyRunning         a fleet of this zoo runs already
    |   |-- NotRunning             no fleet runs for this zoo
    |   |-- NoAnswer               a server of a fleet gave no answer
    |   `-- ModuleServed           the running fleet serves a module that was to be changed
    `-- RequestError               a request the router answers with an error (HTTP status inside)

Messages are one line that says what was wrong, where, and what to do. The command line prints the message and
exits with `exit_code`; the router turns a RequestError into OpenAI's error body. Everything else is a bug.
"""

from __future__ import annotations


class PsserveError(Exception):
    """Base of all errors that are the user's or the machine's, not psserve's."""

    exit_code = 1


class UsageError(PsserveError):
    """A command or option that makes no sense."""

    exit_code = 2


class ZooError(PsserveError):
    """Something is wrong with a zoo or one of its modules."""


class ZooNotFound(ZooError):
    """There is no zoo at the given place."""


class ManifestError(ZooError):
    """A manifest is missing, damaged, or has unknown or wrong fields."""


class UnknownModule(ZooError):
    """The zoo has no module of that name or alias."""


class ModuleExists(ZooError):
    """The name or alias is taken."""


class IncompatibleCheckpoint(ZooError):
    """A checkpoint that would give wrong answers over this base's KV cache."""


class VersionRefused(ZooError):
    """A version of a module that is not as accurate as was required of it."""


class ZooBusy(ZooError):
    """Another command is changing the zoo, and has not ended while this one waited."""


class EngineError(PsserveError):
    """SGLang cannot be extended as psserve needs."""


class UnsupportedSglang(EngineError):
    """SGLang's version is not one psserve was tested with."""


class ChangedSglang(EngineError):
    """A function or field of SGLang that psserve builds on is not as it was tested."""


class HookMissing(EngineError):
    """A function that psserve must hook is not hooked in this process."""


class ImpureTree(EngineError):
    """A radix tree holds something else than whole pages of the base's KV, or a lock of nobody's."""


class ChangedLease(EngineError):
    """Pages of KV that others were reading in place were written to."""


class TrainingError(PsserveError):
    """A module cannot be trained or evaluated as asked."""


class DataError(TrainingError):
    """A data file is missing, damaged, or holds what cannot be trained or evaluated on."""


class BenchError(PsserveError):
    """A benchmark cannot be run as asked, or a file of its results cannot be read."""


class TraceError(BenchError):
    """A trace file has a line that cannot be replayed."""


class FleetError(PsserveError):
    """A fleet cannot be planned, started, found or stopped."""


class PlanError(FleetError):
    """The options cannot become a fleet on this machine."""


class NoRoom(PlanError):
    """A machine has not got the GPUs or the memory for its servers: another one may have.

    Attributes: `lacks` (what is missing, in a few words).
    """

    def __init__(self, message: str, lacks: str) -> None:
        super().__init__(message)
        self.lacks = lacks


class StartError(FleetError):
    """A server did not become ready."""


class HostLost(StartError):
    """The host that a server should run on cannot be reached."""


class AlreadyRunning(FleetError):
    """A fleet of this zoo runs already."""


class NotRunning(FleetError):
    """No fleet runs for this zoo."""


class NoAnswer(FleetError):
    """A server cannot be reached, is silent for too long, or ended amid its answer."""


class ModuleServed(FleetError):
    """The running fleet serves a module that was to be changed on disk."""


class RequestError(PsserveError):
    """A request that the router refuses or could not complete.

    Attributes: `status` (HTTP), `type`, `param`, `code` (OpenAI's error fields) and `retry_after` (seconds, or None).
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def body(self) -> dict[str, dict[str, str | None]]:
        """OpenAI's error body for this error."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}
