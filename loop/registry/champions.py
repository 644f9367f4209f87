"""Know every version of a model and which one is champion, in ZenML, so on every stack alike.

The truth is one append-only log a model, `NAME_promotion` (see `ledger`), so of two runs that promote at the same
time one is told that the other was first. Stages, tags and MLflow aliases are drawn from it and can be drawn again.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import pandas as pd
from pydantic import BaseModel, ConfigDict

from loop.config import Config, Evaluation, UserError, command
from loop.data.contract import DataContract
from loop.registry import ledger, tracking
from loop.training.bundle import Bundle, Card, Remembering
from loop.training.compare import Comparison, compare_versions
from loop.training.gate import Verdict
from loop.training.metrics import Estimate, Scorecard
from loop.training.stand_in import StandIn

CHAMPION, CHALLENGER = "champion", "challenger"
JUDGED, LOOK = "judgement", "look"
"""Metadata of a version: what the gate said, whatever was decided then, and which look at the holdout it was."""
TRIED, LOOKS = 3, 50
"""Earlier champions that are tried on new labels, and looks that are counted, the newest: the 51st has 1 / 2,652 of the
level, so what is not counted adds next to nothing."""
MIRRORED = "mirrored"
"""Metadata of a version that MLflow was given, or cannot be, since its files are gone."""


READING = ("source", "query", "rows", "options")
"""What of `data` says where rows are found, and how they are spelt there; the rest says what they mean."""


class Promotion(BaseModel):
    """One entry of the log: from this moment on, `version` was champion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    time: datetime
    kind: Literal["promotion", "rollback"]
    version: int
    replaces: int | None
    fingerprint: str
    """Of the bundle; what is served must have it."""
    reasons: tuple[str, ...]
    user: str
    run: str | None
    """Name of the ZenML run that promoted it."""


class Earlier(BaseModel):
    """What the models before leave to the next judgement."""

    model_config = ConfigDict(frozen=True)

    looks: tuple[int, ...] = ()
    """Versions that were judged and did not pass: each had its look at the holdout."""
    best: int | None = None
    """The champion of before that the current one was promoted behind, within the margin; None if it was ahead."""
    champions: tuple[int, ...] = ()
    """The newest few that were champion before and not rolled back, whose world may come back."""


@dataclass(frozen=True)
class Version:
    """What is on record of one version."""

    number: int
    time: datetime
    user: str
    decision: str
    """promote, hold or reject, as it was decided in the end; nothing where its run stopped before."""
    passed: bool
    """By the gate, whether it was then promoted or not."""
    look: float | None
    """Which look at its holdout rows it was, as `loop.training.level` counts them."""
    estimates: Mapping[str, Estimate]
    card: Card | None


class Reproduction(BaseModel):
    """What came of training a version again."""

    model_config = ConfigDict(frozen=True)

    rows: int
    """Holdout rows whose predictions were compared."""
    differences: tuple[str, ...]
    notes: tuple[str, ...]


class ChampionChanged(Exception):
    """Another run promoted its model since this one looked."""


def history(name: str) -> list[Promotion]:
    """Return the log of a model, oldest first."""
    return ledger.entries(_log(name))


def versions(name: str) -> list[Version]:
    """Return every version of a model, whatever became of it, oldest first."""
    from zenml.client import Client

    if name not in _model_names():
        return []
    found = []
    for stored in Client().list_model_versions(model=name, sort_by="asc:number", size=1000, hydrate=True).items:
        scorecard, record = stored.get_artifact("scorecard"), stored.get_artifact("stand_in")
        card = record and _content(record)
        if card is None and (model := stored.get_artifact("model")) is not None:
            card = _content(model)
        estimates = scorecard and _content(scorecard)
        look = stored.run_metadata.get(LOOK)
        found.append(
            Version(
                number=stored.number,
                time=stored.created,
                user=stored.user.name if stored.user else "",
                decision=str(stored.run_metadata.get("verdict", "")),
                passed=_passed(stored),
                look=None if look is None else float(str(look)),
                estimates=estimates.estimates if estimates else {},
                card=card.card if card else None,
            )
        )
    return found


def compare(name: str, first: int, second: int, evaluation: Evaluation, costs: tuple[float, float]) -> Comparison:
    """Say what differs between two versions; both are measured on the second's holdout rows, or else the first's."""
    stored = {version: _version(name, version) for version in (first, second)}
    holdout, slices = None, []
    for version in stored.values():
        artifact = version.get_artifact("holdout_rows")
        holdout = holdout if artifact is None or (rows := _content(artifact)) is None else rows
        verdict = artifact and (version.get_artifact("verdict") or version.get_artifact("judgement"))
        groups = (verdict and _content(verdict)) or None
        slices += [(version.number, group) for group in (groups.groups if groups else ())]
    models = known(name, first), known(name, second)
    return compare_versions(name, (first, second), models, holdout, evaluation, costs, tuple(slices))


def champion(name: str) -> Promotion | None:
    """Return the newest entry of the log, or None before the first promotion."""
    found: Promotion | None = ledger.last(_log(name))
    return found


def load(name: str, version: int) -> Bundle:
    """Return the bundle of a registered version; its file must be the one that was registered."""
    bundle, fault = _bundle(name, version)
    if bundle is None or fault:
        raise UserError(f"version {version} of '{name}' cannot be loaded ({fault}); bring back what it lacks")
    return bundle


def load_champion(name: str) -> tuple[int, Bundle] | None:
    """Return the champion's version and bundle; a bundle that is not the promoted one is refused."""
    found = find_rival(name)
    if found is None:
        return None
    version, champion = found
    if isinstance(champion, StandIn):
        raise UserError(
            f"champion version {version} of '{name}' cannot be loaded ({champion.fault}); bring back what it lacks, or "
            f"train again, which goes on without it; an earlier champion comes back by {command('--rollback VERSION')}"
        )
    return version, champion


def find_rival(name: str) -> tuple[int, Bundle | StandIn] | None:
    """Return the champion's version and its bundle or, where that cannot be loaded, what is on record of it.

    A bundle or a record that is not of the promoted model is refused.
    """
    entry = champion(name)
    if entry is None:
        return None
    found = known(name, entry.version)
    if found.card is not None and found.card.fingerprint != entry.fingerprint:
        raise UserError(f"champion version {entry.version} of '{name}' is not the model that was promoted")
    return entry.version, found


def in_production(use_case: Config) -> tuple[Config, list[str]]:
    """Return a use case with the champion's recipe, rows and reading apart, and a sentence for each key it changes."""
    rival = find_rival(use_case.name)
    if rival is None or rival[1].card is None or use_case.retraining.recipe == "config":
        return use_case, []
    recipe = rival[1].card.recipe
    data = recipe.data.model_copy(update={key: getattr(use_case.data, key) for key in READING})
    threshold, now = recipe.model.threshold, use_case.model.threshold
    costs = {"false_positive": now.false_positive, "false_negative": now.false_negative}  # facts of today, no recipe
    model = recipe.model.model_copy(update={"threshold": threshold.model_copy(update=costs)})
    settled = use_case.model_copy(update={"data": data, "split": recipe.split, "model": model})
    differences = [
        f"{section}.{key}: {before}, as the champion; the config has {now}"
        for section in ("data", "split", "model")
        for key, before in getattr(settled, section).model_dump().items()
        if before != (now := getattr(use_case, section).model_dump()[key])
    ]
    return settled, differences


def known(name: str, version: int) -> Bundle | StandIn:
    """Return a version's bundle or, where that cannot be loaded, what is on record of it."""
    bundle, fault = _bundle(name, version)
    if bundle is not None and not fault:
        return bundle
    artifact = _version(name, version).get_artifact("stand_in")
    record = None if artifact is None else _content(artifact)
    return replace(record or StandIn.without_record(bundle.card if bundle else None), fault=fault)


def as_rival(champion: Bundle | StandIn, version: int, contract: DataContract) -> Bundle | StandIn:
    """Return a champion that knows which rows of another contract it learned from.

    By the split it was trained with; where a column that told rows apart has gone or is of another kind, by its own
    training rows, which are on record.
    """
    if not isinstance(champion, Bundle):
        return champion
    before, identity = champion.card.contract, champion.card.split.columns
    kinds = [{name: known.kind for name, known in of.known.items()} for of in (before, contract)]
    same = [name for name in contract.names & before.names if kinds[0].get(name) == kinds[1].get(name)]
    if set(identity) <= {*same}:
        return champion
    artifact = _version(champion.card.recipe.name, version).get_artifact("train_rows")
    rows = None if artifact is None else _content(artifact)
    if rows is None:
        raise UserError(
            f"champion version {version} told rows apart by columns that have changed, and the rows it learned "
            "from are gone; bring their files back, or train under another name"
        )
    return Remembering(champion.card, champion.model_file, rows[[name for name in rows if name in same]])


def earlier(name: str) -> Earlier:
    """Return which versions looked at the holdout and did not pass, and which champion of before did better."""
    from zenml.client import Client

    if name not in _model_names():
        return Earlier()
    stored = Client().list_model_versions(model=name, sort_by="asc:number", size=1000, hydrate=True).items
    entries = history(name)
    promoted = list(dict.fromkeys(entry.version for entry in reversed(entries)))
    looks = [v.number for v in stored if "fingerprint" in v.run_metadata and not (_passed(v) or v.number in promoted)]
    before = [version for version in promoted[1:] if _rollback(entries, version) is None]
    ahead = _ahead(name, promoted[0]) if promoted else None
    return Earlier(
        looks=tuple(looks[-LOOKS:]),
        best=None if ahead is None or _rollback(entries, ahead) else ahead,
        champions=tuple(before[:TRIED]),
    )


def looks(name: str, found: Earlier, fingerprint: str) -> list[StandIn]:
    """Return the records of those that looked at the holdout before this model, which may be registered already."""
    from zenml.client import Client

    own = find(name, fingerprint) if found.looks else None
    before = [version for version in found.looks if own is None or version < own]
    artifacts = [Client().get_model_version(name, version).get_artifact("stand_in") for version in before]
    records = [_content(artifact) for artifact in artifacts if artifact is not None]
    return [record for record in records if record is not None]


def best(name: str, found: Earlier, contract: DataContract) -> tuple[int, Bundle | StandIn] | None:
    """Return the champion of before that did better than the current one, with its version."""
    return None if found.best is None else (found.best, as_rival(known(name, found.best), found.best, contract))


def past_champions(name: str, found: Earlier) -> dict[int, tuple[Bundle, dict[str, Estimate]]]:
    """Return the champions of before that can be loaded, each with the metrics of its own holdout, by version."""
    past = {}
    for version in found.champions:
        model, artifact = known(name, version), _version(name, version).get_artifact("scorecard")
        scorecard: Scorecard | None = artifact and _content(artifact)
        if isinstance(model, Bundle) and scorecard is not None:
            past[version] = (model, scorecard.estimates)
    return past


def _ahead(name: str, version: int) -> int | None:
    """Return the version that a champion was promoted behind, by its verdict."""
    artifact = _version(name, version).get_artifact("verdict")
    verdict: Verdict | None = artifact and _content(artifact)
    if verdict is None or verdict.against is None:
        return None
    behind = any(c.name == "not_worse_than_champion" and c.value < 0 for c in verdict.conditions)
    return verdict.against if behind else None


def _passed(stored: Any) -> bool:
    return bool(stored.run_metadata.get(JUDGED, stored.run_metadata.get("verdict")) == "promote")


def is_gone(name: str, version: int) -> bool:
    """Say whether the files of a registered version's model are there no more."""
    return _bundle(name, version)[0] is None


def evidence(name: str, version: int) -> tuple[Scorecard, pd.DataFrame]:
    """Return a version's scorecard, and holdout rows that stand for what it will meet, 10,000 at most."""
    from zenml.client import Client

    stored = _version(name, version)
    artifact = stored.get_artifact("scorecard")
    scorecard = None if artifact is None else _content(artifact)
    if scorecard is None:
        raise UserError(f"version {version} of '{name}' has no scorecard; train again")
    try:
        rows: pd.DataFrame = Client().get_artifact_version(UUID(str(stored.run_metadata["watched_rows"]))).load()
    except (KeyError, FileNotFoundError) as err:
        raise UserError(
            f"the holdout rows of version {version} of '{name}' are gone, which traffic is compared with; train again"
        ) from err
    return scorecard, rows.head(10_000)


def trusted_rows(name: str, version: int, champion: Bundle | StandIn, otherwise: pd.DataFrame) -> pd.DataFrame:
    """Return holdout rows that stood for what the champion meets; others where the model itself is gone."""
    return evidence(name, version)[1] if isinstance(champion, Bundle) else otherwise


def find(name: str, fingerprint: str) -> int | None:
    """Return the version that holds this very model, if it is registered."""
    from zenml.client import Client

    if name not in _model_names():
        return None
    page = Client().list_model_versions(model=name, run_metadata=f"fingerprint:{fingerprint}", sort_by="asc:number")
    return page.items[0].number if page.items else None


def register(
    name: str, fingerprint: str, artifacts: list[UUID], metadata: Mapping[str, Any], version: int | None = None
) -> int:
    """Create the next version, or complete one whose files are gone; link its artifacts, and return its number."""
    from zenml import log_metadata
    from zenml.client import Client
    from zenml.exceptions import EntityExistsError
    from zenml.model.utils import link_artifact_version_to_model_version

    client = Client()
    if name not in _model_names():
        with suppress(EntityExistsError):  # another run was first, which is as good
            client.create_model(name)
    stored = client.create_model_version(name) if version is None else client.get_model_version(name, version)
    for artifact in artifacts:
        link_artifact_version_to_model_version(client.get_artifact_version(artifact), stored)
    # The fingerprint comes last: it marks the version as whole.
    log_metadata(metadata={**metadata, "fingerprint": fingerprint}, model_version_id=stored.id)
    return stored.number


def promote(
    name: str,
    version: int,
    fingerprint: str,
    *,
    replaces: int | None,
    reasons: tuple[str, ...],
    kind: Literal["promotion", "rollback"] = "promotion",
    run: str | None = None,
) -> Promotion:
    """Append to the log that `version` replaces `replaces`; raise ChampionChanged if that is no longer champion."""
    from zenml.client import Client

    last = champion(name)
    if (last.version if last else None) != replaces:
        raise ChampionChanged
    entry = Promotion(
        number=last.number + 1 if last else 1,
        time=datetime.now(UTC),
        kind=kind,
        version=version,
        replaces=replaces,
        fingerprint=fingerprint,
        reasons=reasons,
        user=Client().active_user.name,
        run=run,
    )
    try:
        ledger.append(_log(name), entry, entry.number)
    except ledger.Taken as err:
        raise ChampionChanged from err
    return entry


def decide(
    name: str, version: int, fingerprint: str, judgement: Verdict, promote_it: Literal["auto", "off"], run: str
) -> Verdict:
    """Promote the version where its judgement, its past and the config allow it; return what was decided, and why."""
    judgement = foresee(name, version, judgement, promote_it)
    if judgement.decision != "promote":
        return judgement
    replaces = judgement.champion_version
    try:
        promote(name, version, fingerprint, replaces=replaces, reasons=judgement.reasons, run=run)
    except ChampionChanged:
        return judgement.held(
            "another run promoted its model while this one was judged; run again to be compared with it"
        )
    return judgement


def foresee(name: str, version: int | None, judgement: Verdict, promote_it: Literal["auto", "off"]) -> Verdict:
    """Return a judgement as the config and the log of promotions change it; a person alone undoes a rollback.

    `version` is the one that holds the judged model, if there is one.
    """
    if judgement.decision != "promote":
        return judgement
    if version is not None and version == judgement.champion_version:  # it was lost, record and card and all
        return judgement.held(f"it is the same model as champion v{version}")
    if version is not None and (withdrawn := rolled_back(name, version)) is not None:
        return judgement.held(
            f"version {version} was {_withdrawn(withdrawn)}; "
            f"only a person brings it back: {command(f'--rollback {version}')}"
        )
    if promote_it == "off":
        return judgement.held("it would be promoted, but gate.promote is off")
    last = champion(name)
    if last is not None and last.kind == "rollback" and last.replaces and rolled_back(name, last.replaces):
        fault = "none was promoted since: see that this one has not the same fault"
        return judgement.because(f"version {last.replaces} was {_withdrawn(last)}, and {fault}")
    return judgement


def _withdrawn(entry: Promotion) -> str:
    return f"rolled back on {entry.time:%Y-%m-%d} ({entry.reasons[0]})"


def keep_verdict(name: str, version: int, verdict: UUID, decision: str) -> None:
    """Put what was decided about a version on record with it: an artifact, and the one word."""
    from zenml import log_metadata
    from zenml.client import Client
    from zenml.model.utils import link_artifact_version_to_model_version

    client = Client()
    stored = client.get_model_version(name, version)
    link_artifact_version_to_model_version(client.get_artifact_version(verdict), stored)
    log_metadata(metadata={"verdict": decision}, model_version_id=stored.id)


def rollback(name: str, version: int | None, reason: str) -> Promotion:
    """Make an earlier champion current again: the given version, or the one the champion had replaced."""
    entries = history(name)
    if not entries:
        raise UserError(f"'{name}' has no champion yet, so there is nothing to roll back")
    current = entries[-1].version
    if version is None:
        version = next(e.replaces for e in reversed(entries) if e.kind == "promotion" and e.version == current)
        if version is None:
            raise UserError(f"version {current} of '{name}' is the first champion; no earlier one to roll back to")
    earlier = {e.version: e.fingerprint for e in entries}
    if version == current:
        raise UserError(f"version {version} of '{name}' already is the champion")
    if version not in earlier:
        known = ", ".join(str(v) for v in sorted(earlier))
        raise UserError(f"version {version} of '{name}' never was champion; these were: {known}")
    if load(name, version).fingerprint != earlier[version]:
        raise UserError(f"version {version} of '{name}' is not the model that was promoted then")
    try:
        entry = promote(name, version, earlier[version], replaces=current, reasons=(reason,), kind="rollback")
    except ChampionChanged as err:
        raise UserError(
            f"another run promoted its model of '{name}' just now; look at --history and decide again"
        ) from err
    draw(name)
    return entry


def rolled_back(name: str, version: int) -> Promotion | None:
    """Return the rollback that last took this version out of service, unless it has come back since."""
    return _rollback(history(name), version)


def _rollback(entries: list[Promotion], version: int) -> Promotion | None:
    """Return the rollback that speaks against a version; one that only takes back another rollback does not."""
    for place, entry in reversed(list(enumerate(entries))):
        if entry.version == version:
            return None
        if entry.kind == "rollback" and entry.replaces == version:
            return None if _rollback(entries[:place], entry.version) else entry
    return None


def draw(name: str) -> None:
    """Make MLflow's versions and aliases, and ZenML's stage and tags, show what the log says.

    Doing it twice is harmless. What `repair` asks for comes last.
    """
    from zenml.client import Client

    drawing = _drawings(name)
    if tracking.has_tracker():
        _mirror(name, drawing)
        numbers = {tag: drawn.version.number for drawn in drawing for tag in drawn.wanted}
        tracking.point_aliases(name, numbers.get(CHAMPION), numbers.get(CHALLENGER))
    for drawn in drawing:
        if not drawn.is_right:
            Client().update_model_version(
                name,
                drawn.version.id,
                stage=drawn.stage,
                force=True,
                add_tags=[*drawn.wanted - drawn.held],
                remove_tags=[*drawn.held - drawn.wanted],
            )


def repair(name: str) -> None:
    """Draw what a run that was killed has left; ZenML alone is asked whether there is anything."""
    if name not in _model_names():
        return
    drawing, tracked = _drawings(name), tracking.has_tracker()
    if not all(drawn.is_right and (drawn.is_mirrored or not tracked) for drawn in drawing):
        draw(name)


def reproduce(name: str, version: int) -> Reproduction:
    """Train a version again from the rows and the recipe its run recorded, and compare bit for bit."""
    from loop.data.contract import learn_contract
    from loop.data.notes import Reading
    from loop.training.fit import train

    stored, old = _version(name, version), load(name, version)
    recipe, before = old.card.recipe, old.card.contract
    if before.version == 1:
        raise UserError(
            f"version {version} of '{name}' was trained by an earlier release of this template, which read tables "
            "otherwise; check that release out to reproduce it"
        )
    found = {}
    for side in ("train_rows", "holdout_rows"):
        artifact = stored.get_artifact(side)
        if artifact is None:
            raise UserError(f"version {version} of '{name}' has no {side}: its run stopped before registering them")
        if (rows := _content(artifact)) is None:
            raise UserError(f"the {side} of version {version} of '{name}' are gone, so it cannot be trained again")
        found[side] = rows
    train_rows, holdout_rows = found.values()
    reading = Reading(new=tuple(column for column, reason in before.left_out.items() if reason == "new"))
    settled = before.known
    contract = learn_contract(
        train_rows, recipe.data, recipe.contract, before.reference_rows, reading=reading, settled=settled
    )
    new = train(train_rows, contract, old.card.split, recipe)
    differences = [
        f"{part}: {before} then, {now} now"
        for part, before, now in (
            ("training rows", old.card.data, new.card.data),
            ("model file", old.card.model, new.card.model),
            ("threshold", old.card.threshold, new.card.threshold),
        )
        if before != now
    ]
    if old.scores(holdout_rows).tobytes() != new.scores(holdout_rows).tobytes():
        differences.append(f"predictions on the {len(holdout_rows):,} holdout rows")
    notes = []
    if old.card.code != new.card.code:
        notes.append("this project's code has changed since")
    here = new.card.environment
    changed = [f"{p} {v} → {here[p]}" for p, v in old.card.environment.items() if here[p] != v]
    if changed:
        notes.append(f"the environment has changed since: {', '.join(changed)}")
    return Reproduction(rows=len(holdout_rows), differences=tuple(differences), notes=tuple(notes))


@dataclass(frozen=True)
class _Drawing:
    """How a version is shown in ZenML, and how it should be."""

    version: Any
    wanted: set[str]
    """Its tags."""

    @property
    def held(self) -> set[str]:
        return {tag.name for tag in self.version.tags} & {CHAMPION, CHALLENGER}

    @property
    def stage(self) -> Any:
        from zenml.enums import ModelStages

        return ModelStages.PRODUCTION if CHAMPION in self.wanted else None

    @property
    def is_right(self) -> bool:
        return self.wanted == self.held and (self.stage is None or self.version.stage == self.stage)

    @property
    def is_mirrored(self) -> bool:
        """Say whether MLflow was given it; one that a killed run has not finished registering is not to be."""
        return MIRRORED in self.version.run_metadata or "fingerprint" not in self.version.run_metadata


def _drawings(name: str) -> list[_Drawing]:
    from zenml.client import Client

    entry = champion(name)
    first = entry.version if entry else None
    versions = Client().list_model_versions(model=name, sort_by="desc:number", size=1000, hydrate=True).items
    newest = versions[0].number if versions else None
    tags = {newest: {CHALLENGER}, first: {CHAMPION}}
    return [_Drawing(stored, tags.get(stored.number, set())) for stored in versions]


def _mirror(name: str, drawing: list[_Drawing]) -> None:
    """Give MLflow the versions that it lacks, oldest first: their runs were killed, or had no tracker."""
    from zenml import log_metadata

    for stored in (drawn.version for drawn in reversed(drawing) if not drawn.is_mirrored):
        if not tracking.is_registered(name, stored.number):
            parts = {page: stored.get_artifact(part) for page, part in tracking.PAGES.items()}
            found: dict[str, Any] = {page: part and _content(part) for page, part in parts.items()}
            bundle, fault = _bundle(name, stored.number)
            if bundle is not None and not fault and found["contract"] and found["evaluation"]:
                # A run that was killed before it decided has no verdict.
                pages = {page: result.page for page, result in found.items() if result}
                with tracking.resumed(name, str(stored.run_metadata["run"])):
                    tracking.record(name, stored.number, bundle, found["evaluation"], pages)
        log_metadata(metadata={MIRRORED: True}, model_version_id=stored.id)


def _bundle(name: str, version: int) -> tuple[Bundle | None, str]:
    """Return a version's bundle, unless its files are gone, and why it cannot be used, if it cannot.

    One that was changed after it was registered is a UserError: tampering is no reason to go on.
    """
    stored = _version(name, version)
    artifact = stored.get_artifact("model")
    if artifact is None:
        return None, "it has no model: its run stopped before registering it, or it was deleted"
    bundle: Bundle | None = _content(artifact)
    if bundle is None:
        return None, f"{artifact.uri} is gone"
    if bundle.fingerprint != stored.run_metadata.get("fingerprint"):
        raise UserError(f"the model of version {version} of '{name}' was changed after it was registered")
    return bundle, bundle.fault


def _content(artifact: Any) -> Any | None:
    """Load an artifact, or nothing where its files are gone; then its step is not served from cache again."""
    from zenml.client import Client

    try:
        return artifact.load()
    except FileNotFoundError:
        if artifact.producer_step_run_id is not None:
            Client().update_step_run(artifact.producer_step_run_id, cache_expires_at=datetime.now(UTC))
        return None


def _version(name: str, version: int) -> Any:
    from zenml.client import Client

    if name not in _model_names():
        raise UserError(f"no model '{name}' is registered; train one first: {command('--pipeline training')}")
    numbers = [v.number for v in Client().list_model_versions(model=name, size=1000).items]
    if version not in numbers:
        raise UserError(f"no version {version} of '{name}'; it has {', '.join(map(str, sorted(numbers))) or 'none'}")
    return Client().get_model_version(name, version)


def _model_names() -> set[str]:
    from zenml.client import Client

    return {model.name for model in Client().list_models(size=1000).items}


def _log(name: str) -> str:
    return f"{name}_promotion"
