"""The exception tree.

    FlywheelError
    ├── TransientError            doing the same again may work: flows retry these
    │   ├── UpstreamUnavailableError   a server did not answer, or answered 5xx or 429
    │   ├── EngineBusyError            the engine's queue is full, or it is shutting down
    │   ├── LimitReachedError          a caller must wait (HTTP 429)
    │   │   ├── RateLimitedError           its key's requests or tokens a minute are used up
    │   │   └── BudgetSpentError           its workload's budget of the day is spent
    │   ├── LakeConflictError          another writer kept winning the commit
    │   ├── SpoolBusyError             another drain works on the same spool
    │   └── TrainingInterruptedError   the training process was killed; run again to resume
    └── TerminalError             somebody must change something first: flows do not retry
        ├── ConfigError                a file or a setting is wrong; lists every problem at once
        ├── BadRequestError            a caller's request cannot be honoured (HTTP 4xx)
        │   ├── UnknownModelError
        │   └── KeyRefusedError            no gateway key, or not one for this (HTTP 401, 403)
        ├── BadRecordError             a row cannot become a record; goes to quarantine
        ├── LakeSchemaError            the lake was written by a newer Flywheel
        ├── LakeFormatError            a table uses a Delta feature Flywheel would misread
        ├── LakeVersionError           a version of a table that is not there to read
        ├── QueryError                 SQL that DuckDB refused
        ├── MissingExtraError          an optional dependency is not installed
        ├── BaseModelError             the base model cannot be found or read
        ├── NotEnoughLabelsError       too little to learn from; not a failure of the night
        ├── DatasetError               labels that cannot make a dataset
        ├── TrainingError              a guard on training tripped
        ├── AdapterError               an adapter folder that must not be served
        │   ├── AdapterNotFoundError       no folder there, or no adapter of that name
        │   └── DuplicateAdapterError      the name is taken
        ├── GateError                  a gate that cannot be run as declared
        ├── JudgeError                 a judge that may not do what it was asked to
        │   ├── JudgeNotQualifiedError     it has not qualified, or no longer is what qualified
        │   ├── JudgeBudgetError           its run reached its budget
        │   ├── CalibrationError           no random labels to correct its mean by
        │   └── VerdictError               what it wrote is no verdict its rubric offers
        ├── TrackingError              MLflow refused what it was asked
        ├── NightRunningError          another night of the workload is going on
        └── PromotionError             a promotion that cannot go ahead
            └── EpochConflictError     somebody else moved the alias first

Classes take facts, keep them as attributes and write their own sentence: what was asked, what was
found, what is valid, and the next command to type.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal


class FlywheelError(Exception):
    """Anything Flywheel raises on purpose."""


class TransientError(FlywheelError):
    """Doing the same again may work."""


class TerminalError(FlywheelError):
    """Doing the same again cannot work: something must be changed first."""


class UpstreamUnavailableError(TransientError):
    """A server did not answer, or answered that it cannot now."""

    def __init__(
        self,
        url: str,
        reason: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url, self.reason, self.status = url, reason, status
        self.retry_after_s = retry_after_s
        """How long it asks to be left alone; None where it does not say."""
        self.headers = dict(headers or {})
        """Its rate-limit headers, names in lower case."""
        super().__init__(f"{url} is not available: {reason}. Is it up? `flywheel status` tells.")


class EngineBusyError(TransientError):
    """The engine takes no request now; `status` is the HTTP status to answer with."""

    def __init__(self, reason: str, *, status: int = 429, retry_after_s: int = 1) -> None:
        self.reason, self.status, self.retry_after_s = reason, status, retry_after_s
        super().__init__(f"{reason}; try again in {retry_after_s} s")


class LimitReachedError(TransientError):
    """A caller must wait: `status`, `kind` and `code` are what OpenAI answers with."""

    status = 429
    code: str
    kind: str
    """`type` of OpenAI's error object."""
    reason: Literal["requests", "tokens", "budget"]
    retry_after_s: int

    def __init__(self, message: str) -> None:
        self.headers: dict[str, str] = {}
        """`x-ratelimit-*`, for the reply."""
        super().__init__(message)


class RateLimitedError(LimitReachedError):
    """A key's requests or tokens of this minute are used up."""

    code = "rate_limit_exceeded"

    def __init__(
        self, key: str, kind: Literal["requests", "tokens"], limit: int, wait_s: float
    ) -> None:
        self.key, self.kind, self.reason, self.limit = key, kind, kind, limit
        self.retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(
            f"key {key!r} may use {limit} {kind} a minute and has: try again in "
            f"{self.retry_after_s} s"
        )


class BudgetSpentError(LimitReachedError):
    """A workload's budget of the day is spent."""

    code = kind = "insufficient_quota"
    reason = "budget"

    def __init__(
        self, workload: str, *, spent_usd: float, budget_usd: float, now: datetime, resets: datetime
    ) -> None:
        self.workload, self.spent_usd, self.budget_usd = workload, spent_usd, budget_usd
        self.resets_at = resets
        self.retry_after_s = max(1, math.ceil((resets - now).total_seconds()))
        super().__init__(
            f"the daily budget of {workload} is spent: {spent_usd:.4f} of {budget_usd:.4f} USD "
            f"(gateway.daily_budget_usd). It resets at {resets:%Y-%m-%dT%H:%M:%SZ}, in "
            f"{self.retry_after_s} s"
        )


class LakeConflictError(TransientError):
    """Other writers kept winning the commit on a table."""

    def __init__(self, table: str, attempts: int) -> None:
        self.table, self.attempts = table, attempts
        super().__init__(
            f"could not commit to {table} in {attempts} attempts: other writers kept winning"
        )


class SpoolBusyError(TransientError):
    """Another drain holds the spool."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        super().__init__(
            f"another drain is working on {folder}; wait for it, then run "
            "`flywheel capture drain` again: nothing is lost meanwhile"
        )


class TrainingInterruptedError(TransientError):
    """The training process ended before it finished; its checkpoints remain."""

    def __init__(self, output_dir: str, returncode: int, tail: str) -> None:
        self.output_dir, self.returncode, self.tail = output_dir, returncode, tail
        super().__init__(
            f"training in {output_dir} was interrupted (exit {returncode}); "
            f"the same command resumes from its last checkpoint. Last lines: {tail}"
        )


class ConfigError(TerminalError):
    """A file or a setting is wrong. Every problem is listed, not only the first."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source, self.problems = source, tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__("\n  ".join([f"{source}: {count}", *self.problems]))


class BadRequestError(TerminalError):
    """A caller's request cannot be honoured; `status` is the HTTP status to answer with."""

    status = 400

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        self.param, self.code = param, code
        super().__init__(message)


class UnknownModelError(BadRequestError):
    """A model name nobody serves."""

    status = 404

    def __init__(self, model: str, known: Sequence[str] | None = None) -> None:
        self.model, self.known = model, tuple(known or ())
        served = "none" if known is not None else "what GET /v1/models lists"
        super().__init__(
            f"model {model!r:.80} is not served here; served: {', '.join(self.known) or served}",
            param="model",
            code="model_not_found",
        )


class KeyRefusedError(BadRequestError):
    """A call without a gateway key, or with one that does not open what it asks for."""

    status = 401

    def __init__(
        self,
        reason: Literal["missing", "unknown", "revoked", "workload"],
        *,
        key: str = "",
        workload: str = "",
    ) -> None:
        self.reason, self.key, self.workload = reason, key, workload
        sentence = {
            "missing": "no API key was given: send `Authorization: Bearer <key>`",
            "unknown": "this API key is not known here",
            "revoked": f"the API key {key!r} was revoked",
            "workload": f"the API key {key!r} is not for {workload}",
        }[reason]
        if reason == "workload":
            self.status = 403
        super().__init__(
            f"{sentence}. `flywheel keys create` makes one.",
            code="model_not_found" if reason == "workload" else "invalid_api_key",
        )


class BadRecordError(TerminalError):
    """A row that cannot become a record; it goes to quarantine with this reason."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


class LakeSchemaError(TerminalError):
    """The lake was written by a newer Flywheel than this one."""

    def __init__(self, table: str, found: int, supported: int) -> None:
        self.table, self.found, self.supported = table, found, supported
        super().__init__(
            f"table {table} is at schema version {found}; this Flywheel reads up to {supported}. "
            "Nothing was changed. Upgrade with `pip install -U flywheel`."
        )


class LakeFormatError(TerminalError):
    """A table uses a Delta feature that Flywheel would read wrongly."""

    def __init__(self, table: str, features: Sequence[str]) -> None:
        self.table, self.features = table, tuple(features)
        super().__init__(
            f"table {table} uses {', '.join(self.features)}: read without it, deleted rows would "
            "come back or columns be confused. Nothing was changed. Rewrite the table without it "
            "(in Spark: REORG TABLE … APPLY (PURGE), then ALTER TABLE … DROP FEATURE)."
        )


class LakeVersionError(TerminalError):
    """A version of a table that was never written, or whose log is gone."""

    def __init__(self, table: str, version: int, latest: int) -> None:
        self.table, self.version, self.latest = table, version, latest
        super().__init__(
            f"table {table} has no version {version} to read; its latest is {latest}. "
            f"`flywheel lake history {table}` lists them."
        )


class QueryError(TerminalError):
    """SQL that DuckDB refused."""

    def __init__(self, sql: str, reason: str) -> None:
        self.sql, self.reason = sql, reason
        super().__init__(f"{reason}\nTables and views: `flywheel lake tables`.")


class MissingExtraError(TerminalError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"this needs {package}, which is not installed: pip install 'flywheel[{extra}]'"
        )


class BaseModelError(TerminalError):
    """The base model cannot be found or read."""

    def __init__(self, model: str, tried: Sequence[str]) -> None:
        self.model, self.tried = model, tuple(tried)
        super().__init__("\n  ".join([f"base model {model!r} was not found. Tried:", *self.tried]))


class NotEnoughLabelsError(TerminalError):
    """Too few new labels to be worth a night: a reason to end early, not a failure."""

    def __init__(self, workload: str, found: int, needed: int, *, hint: str = "") -> None:
        self.workload, self.found, self.needed, self.hint = workload, found, needed, hint
        super().__init__(
            f"{workload}: {found} new labels since the last night, {needed} are needed "
            "(labels.minimum_new). More come by POST /v1/feedback or `flywheel label import`."
            f"{' ' + hint if hint else ''}"
        )


class DatasetError(TerminalError):
    """Labels that cannot make a dataset."""


class TrainingError(TerminalError):
    """A guard on training tripped: nothing trainable, NaN, unchanged weights, unservable rank."""


class AdapterError(TerminalError):
    """An adapter folder that must not be served: truncated, another base's, not safetensors."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"adapter {path} cannot be used: {reason}")


class AdapterNotFoundError(AdapterError):
    """No folder there, or no adapter of that name."""


class DuplicateAdapterError(AdapterError):
    """An adapter of that name is loaded: names are never given to other weights."""


class GateError(TerminalError):
    """A gate that cannot be run as declared."""


class JudgeError(TerminalError):
    """A judge that may not do what it was asked to."""


class JudgeNotQualifiedError(JudgeError):
    """A judge that has not qualified, whose qualification has expired, or that has changed."""

    def __init__(self, judge: str, reason: str) -> None:
        self.judge, self.reason = judge, reason
        super().__init__(
            f"the word of judge {judge!r} does not count: {reason}. "
            f"`flywheel judge qualify {judge} --gold gold.jsonl` qualifies it."
        )


class JudgeBudgetError(JudgeError):
    """A judge run reached its budget; what was judged is kept."""

    def __init__(self, judge: str, spent: str, budget: str, left: int) -> None:
        self.judge, self.left = judge, left
        super().__init__(
            f"judge {judge!r} stopped at its budget: {spent} spent of {budget}, {left} items not "
            "judged. What was judged is kept; raise judges.*.run.budget_usd or budget_tokens and "
            "run it again to go on."
        )


class VerdictError(JudgeError):
    """What a judge wrote is no verdict its rubric offers."""

    def __init__(self, reason: str, *, found: str | None = None) -> None:
        self.reason, self.found = reason, found
        """The reason quotes nothing of what was written: it may go back to a model."""
        super().__init__(f"no verdict: {reason}" + (f" (found {found})" if found else ""))


class CalibrationError(JudgeError):
    """A judge's mean that cannot be corrected by labels."""

    def __init__(self, judge: str, against: str, reason: str) -> None:
        self.judge, self.against, self.reason = judge, against, reason
        super().__init__(f"judge {judge!r} cannot be calibrated against {against!r}: {reason}.")


class TrackingError(TerminalError):
    """MLflow refused what it was asked."""

    def __init__(self, uri: str, reason: str) -> None:
        self.uri, self.reason = uri, reason
        super().__init__(f"MLflow at {uri}: {reason}")


class NightRunningError(TerminalError):
    """Another night of the same workload is going on."""

    def __init__(self, workload: str, lock: str) -> None:
        self.workload, self.lock = workload, lock
        super().__init__(
            f"a night of {workload} is going on already (it holds {lock}): wait for it, or stop "
            "it; its work is kept, and the next night goes on from there"
        )


class PromotionError(TerminalError):
    """A promotion or a roll-back that cannot go ahead."""


class EpochConflictError(PromotionError):
    """Somebody else moved the alias first."""

    def __init__(self, workload: str, expected: int, found: int) -> None:
        self.workload, self.expected, self.found = workload, expected, found
        super().__init__(
            f"{workload} is at epoch {found}, not {expected}: somebody moved it meanwhile. "
            f"Look with `flywheel status`, then decide again."
        )
