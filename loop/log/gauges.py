"""Hand the numbers of a monitoring run to the service of the model, which shows them to Prometheus beside its own.

They are one small file beside the prediction log, so nothing more has to run than what runs anyway.
"""

import math
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pydantic import AwareDatetime, Field, ValidationError, field_validator, model_validator

from loop.config import Section, UserError

FILE = "monitoring.json"
MAX_BYTES = 2**20  # some 10,000 columns; what a service reads at a scrape stays small, whoever wrote it
LAST_RUN = "monitoring_last_run_timestamp_seconds"
READABLE = "monitoring_readable"
TAKEN = ("model", "version", "job", "instance")  # the service and Prometheus say these themselves

_LABEL = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")


class Gauge(Section):
    """One number, or one for each combination of labels."""

    name: str = Field(pattern=r"^monitoring_[a-z_]+$")
    help: str = Field(min_length=1)
    samples: tuple[tuple[dict[str, str], float], ...]
    """Labels and value; what could not be measured (NaN, infinite) is left out: to Prometheus it is then not there."""

    @field_validator("samples", mode="before")
    @classmethod
    def _measured(cls, samples: Iterable[Any]) -> tuple[Any, ...]:
        return tuple((labels, value) for labels, value in samples if not _unknown(value))

    @model_validator(mode="after")
    def _one_value_each(self) -> Self:
        if self.name in (LAST_RUN, READABLE):
            raise ValueError(f"{self.name} is added by the service itself")
        for label in {label for labels, _ in self.samples for label in labels}:
            if label in TAKEN or not _LABEL.fullmatch(label):
                raise ValueError(f"'{label}' cannot be a label of {self.name}")
        if len({frozenset(labels.items()) for labels, _ in self.samples}) < len(self.samples):
            raise ValueError(f"{self.name} has two values with the same labels")
        return self


class Published(Section):
    """What monitoring last found."""

    version: int
    """Of the model it looked at."""
    time: AwareDatetime
    """When it ran."""
    gauges: tuple[Gauge, ...]

    @field_validator("gauges")
    @classmethod
    def _different(cls, gauges: tuple[Gauge, ...]) -> tuple[Gauge, ...]:
        if len({gauge.name for gauge in gauges}) < len(gauges):
            raise ValueError("two gauges have the same name")
        return gauges


def publish(folder: str | Path, version: int, time: AwareDatetime, gauges: Iterable[Gauge]) -> None:
    """Replace at once what the service of this log folder (the parent of `predictions/`) shows."""
    content = Published(version=version, time=time, gauges=tuple(gauges)).model_dump_json().encode()
    if len(content) > MAX_BYTES:
        raise UserError(f"the gauges take {len(content):,} bytes, a service reads {MAX_BYTES:,}; watch fewer columns")
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{FILE}.{secrets.token_hex(4)}")
    try:
        new.write_bytes(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def read(folder: str | Path) -> Published | None:
    """Return what was published last, or None if nothing ever was; a file that is none of ours is a UserError."""
    path = Path(folder) / FILE
    if path.exists() and not path.is_file():  # a pipe would keep whoever reads it
        raise UserError(f"{path} is no file; remove it")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES:,} bytes; run monitoring again")
        return Published.model_validate_json(content)
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as err:
        why = err.strerror if isinstance(err, OSError) else f"{err.error_count()} faults"
        raise UserError(f"{path} cannot be read ({why}); run monitoring again") from err


def _unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
