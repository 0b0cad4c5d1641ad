"""Which workload has which policy, for whoever drains.

One spool may hold the calls of several workloads, and a drain is often told of one, or of none. So
the gateway leaves each policy in <home>/redaction/, and a drain that knows no better takes it from
there: a forgotten option must not store what a policy takes out.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from flywheel.capture.redact.redactor import Redactor, make_redactor, redactor_for
from flywheel.errors import ConfigError
from flywheel.settings import Settings
from flywheel.workload import RedactionSection, Workload


def remember_policy(workload: Workload, settings: Settings) -> None:
    """Leaves the workload's policy where every drain of this home finds it."""
    path = _folder(settings) / f"{workload.name}.json"
    if workload.capture.redaction.policy == "none":
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(workload.capture.redaction.model_dump_json(), encoding="utf-8")
    temporary.replace(path)


def redactors_for(settings: Settings, *workloads: Workload) -> Mapping[str, Redactor]:
    """A redactor for each workload of this home that has a policy, by the workload's name.

    Args:
        settings: of the deployment.
        workloads: known from their files; what these say wins over what was remembered.

    Raises:
        ConfigError: a policy cannot be applied here, or what was remembered cannot be read.
    """
    found = {
        name: make_redactor(name, section, settings) for name, section in _remembered(settings)
    }
    found |= {workload.name: redactor_for(workload, settings) for workload in workloads}
    return {name: redactor for name, redactor in found.items() if redactor is not None}


def _remembered(settings: Settings) -> Iterable[tuple[str, RedactionSection]]:
    for path in sorted(_folder(settings).glob("*.json")):
        try:
            section = RedactionSection.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ConfigError(
                str(path), [f"not what `flywheel gateway` writes: {error}; start it again"]
            ) from error
        yield path.stem, section


def _folder(settings: Settings) -> Path:
    return settings.root / "redaction"
