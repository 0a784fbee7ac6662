"""The operator's configuration: one YAML file, each field of which an environment variable may override.

Names are camelCase in the file (`leaderElection.leaseDurationSeconds`) and BERTH_, capitals and two underscores
between parts in the environment (BERTH_LEADER_ELECTION__LEASE_DURATION_SECONDS).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel, to_snake
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from berth.api.problems import first_problem, path
from berth.model.gpus import MODELS
from berth.model.pools import NodePool
from berth.model.prices import CapacityType
from berth.model.topology import DEFAULT_LEVELS, Level
from berth.planning.snapshot import DAY_SECONDS, Backfilling, Consolidating, Growing, Policy, Preempting, QuietHours

Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600, allow_inf_nan=False)]
HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
SHORTEST_QUIET = 1800  # seconds: moves take minutes
Port = Annotated[int, Field(ge=1, le=65535)]


class ConfigError(ValueError):
    """The configuration can't be used; the message names the file, the line and the field."""


class Section(BaseModel):
    """A part of the configuration. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LevelSetting(Section):
    """A topology level."""

    name: str = Field(min_length=1, max_length=63)  # that `topology.level` of workloads names
    labels: list[str] = Field(min_length=1)  # node labels that name a node's domain; the first present wins


LEVELS = [LevelSetting(name=level.name, labels=list(level.labels)) for level in DEFAULT_LEVELS]


class LeaderElection(Section):
    """The Lease that keeps all operators but one from acting."""

    namespace: str = ""  # "": the operator's own
    name: str = Field("berth", min_length=1, max_length=63)  # of the Lease
    lease_duration_seconds: int = Field(15, ge=2, le=3600)  # that others wait for a holder who is silent
    renew_deadline_seconds: Seconds = 10.0  # after so long without a renewal the holder stops acting
    retry_period_seconds: Seconds = 2.0  # between two tries to get or renew it

    @model_validator(mode="after")
    def _in_order(self) -> LeaderElection:
        if not self.retry_period_seconds < self.renew_deadline_seconds < self.lease_duration_seconds:
            raise ValueError("retryPeriodSeconds < renewDeadlineSeconds < leaseDurationSeconds must hold")
        return self


class MigManagerSetting(Section):
    """The ConfigMap that NVIDIA's mig-manager reads: `migManager.config.name` of the ClusterPolicy."""

    namespace: str = Field("gpu-operator", min_length=1, max_length=63)  # that mig-manager runs in
    config_map: str = Field("default-mig-parted-config", min_length=1, max_length=253)  # give it one of its own


class ConsolidationSetting(Section):
    """Moving running gangs so that one fits that waits."""

    enabled: bool = False  # whether running gangs are moved at all
    most_moves: int = Field(4, ge=1, le=100)  # gangs moved for one that waits
    min_runtime_seconds: Seconds = 600.0  # a gang is left alone for so long after its start
    restart_seconds: Seconds = 120.0  # that a moved gang's boards idle, for the price of a move
    quiet_hours: str = ""  # such as 22:00-06:00, UTC: gangs may be moved though nothing waits; "": never
    quiet_budget_usd: float = Field(0.0, ge=0, allow_inf_nan=False)  # what such moves may cost in each quiet hours

    @field_validator("quiet_hours")
    @classmethod
    def _are_hours(cls, text: str) -> str:
        if text and _times_of_day(text) is None:
            raise ValueError(
                f"must be two times of day in UTC at least half an hour apart, as 22:00-06:00, got {text!r}"
            )
        return text

    @model_validator(mode="after")
    def _has_budget(self) -> ConsolidationSetting:
        if self.quiet_hours and not self.quiet_budget_usd:
            raise ValueError("quietHours need a quietBudgetUsd above 0, in dollars")
        return self

    def rules(self) -> Consolidating:
        """What the planner needs of it."""
        times = _times_of_day(self.quiet_hours)
        quiet = QuietHours(*times, self.quiet_budget_usd) if times else None
        return Consolidating(self.enabled, self.most_moves, self.min_runtime_seconds, self.restart_seconds, quiet)


class FairShareSetting(Section):
    """How queues that want the same boards take turns."""

    half_life_hours: float = Field(168.0, ge=1, le=10_000, allow_inf_nan=False)  # after so long, use counts for half


class BackfillSetting(Section):
    """Work that goes before work that waits for more room."""

    most_wait_seconds: Seconds = float(DAY_SECONDS)  # who has waited for longer is passed by nobody who wants its room

    def rules(self) -> Backfilling:
        """What the planner needs of it."""
        return Backfilling(most_wait_seconds=self.most_wait_seconds)


class PreemptionSetting(Section):
    """Stopping running work for what is more important, or for a queue that takes back what it lent."""

    min_runtime_seconds: float = Field(300.0, ge=0, le=7 * 24 * 3600)  # whoever has started is left alone for so long
    restart_seconds: float = Field(120.0, ge=0, le=7 * 24 * 3600)  # that its boards idle when it starts again


class ElasticSetting(Section):
    """Elastic gangs that grow while they run."""

    min_runtime_seconds: float = Field(
        600.0, ge=0, le=7 * 24 * 3600
    )  # a gang is left alone for so long after its start
    restart_seconds: float = Field(120.0, ge=0, le=7 * 24 * 3600)  # that all its boards idle when it starts again


class CarbonZone(Section):
    """A zone of the carbon source."""

    zone: str = Field(min_length=1, max_length=63)  # as the source names it
    regions: list[str] = []  # of nodes (topology.kubernetes.io/region) that lie in it
    grams_per_kwh: float | None = Field(None, ge=0, le=3000, allow_inf_nan=False)  # believed where nothing is known


class CarbonSetting(Section):
    """Where the carbon intensity of zones is known from."""

    source: Literal[
        "none", "electricityMaps", "wattTime", "ukCarbonIntensity", "carbonAwareSdk", "azureConfigMap", "file"
    ] = "none"  # who is asked; none: only `gramsPerKwh` of zones is believed
    url: str = ""  # of the source; "": its public one
    credentials_folder: str = ""  # a mounted Secret with `token`, or `username` and `password`
    file: str = ""  # of hours (CSV): datetime_utc, then one column a zone
    kept_folder: str = ""  # what was told is kept here over restarts; "": ~/.cache/berth/carbon
    zones: list[CarbonZone] = []  # that nodes lie in; those without a region lie in the first
    poll_seconds: Seconds = 900.0  # a zone is asked for at most so often
    stale_seconds: Seconds = 21600.0  # a forecast older than that is called stale
    timeout_seconds: Seconds = 10.0  # of one request

    @model_validator(mode="after")
    def _says_where(self) -> CarbonSetting:
        if self.source == "file" and not self.file:
            raise ValueError("source: file needs the path of one in `file`")
        if self.source == "carbonAwareSdk" and not self.url:
            raise ValueError("source: carbonAwareSdk needs the url of its WebAPI, such as http://carbon-aware:8080")
        return self

    @field_validator("zones")
    @classmethod
    def _zones_differ(cls, zones: list[CarbonZone]) -> list[CarbonZone]:
        _each_once([name for zone in zones for name in {zone.zone, *zone.regions}], "zone or region")
        return zones

    def zone_of(self, name: str) -> str:
        """The zone that a region lies in; what is no region of any is a zone itself. Without a name, the first zone."""
        if not name and self.zones:
            return self.zones[0].zone
        return next((zone.zone for zone in self.zones if name in zone.regions), name)

    @property
    def told(self) -> bool:
        """Whether anything is known of any zone."""
        return self.source != "none" or any(zone.grams_per_kwh is not None for zone in self.zones)


class PricesSetting(Section):
    """Where prices are asked for. What they lack is as in `pricesFile`, else at list price."""

    source: Literal["none", "json", "openCost"] = "none"  # who is asked
    url: str = ""  # of a price book in JSON, or of OpenCost's API
    credentials_folder: str = ""  # for json: a mounted Secret with `token`, a bearer token; "": it needs none
    kept_folder: str = ""  # what was told is kept here over restarts; "": ~/.cache/berth/prices
    poll_seconds: Seconds = 900.0  # it is asked at most so often
    stale_seconds: Seconds = 86400.0  # prices older than that are called stale
    timeout_seconds: Seconds = 10.0  # of one request

    @model_validator(mode="after")
    def _says_where(self) -> PricesSetting:
        if self.source != "none" and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"source: {self.source} needs a url, such as http://opencost.opencost:9003")
        if self.source == "none" and self.url:
            raise ValueError("url is asked for nothing: set source to json or openCost")
        return self


class PoolSetting(Section):
    """Nodes that an autoscaler makes for pods that ask for their labels."""

    name: str = Field(min_length=1, max_length=63)  # that verdicts name
    labels: dict[str, str] = Field(min_length=1)  # that all its nodes have, and no others
    model: str  # of GPU
    boards_per_node: int = Field(ge=1, le=64)  # all of that model
    nodes_most: int = Field(ge=1, le=10_000)  # that Berth asks for, those that are there counted
    zone: str = ""  # of its nodes, as their label topology.kubernetes.io/zone says
    region: str = ""  # of its nodes, as their label topology.kubernetes.io/region says
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    provision_seconds: Seconds = 600.0  # who has no nodes of it by then goes elsewhere

    @field_validator("model")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if not (found := [model.name for model in MODELS if model.answers_to(name)]):
            raise ValueError(f"there is no model {name!r}: wanted one of {', '.join(m.name for m in MODELS)}")
        if len(found) > 1:
            raise ValueError(f"{name!r} may be {' or '.join(found)}: say which")
        return found[0]

    def pool(self) -> NodePool:
        """What the planner needs of it."""
        return NodePool(
            self.name,
            tuple(sorted(self.labels.items())),
            self.model,
            self.boards_per_node,
            self.nodes_most,
            self.zone,
            self.region,
            self.capacity_type,
            self.provision_seconds,
        )


def _each_once(names: Sequence[str], what: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is there twice: give each {what} a name of its own")


class Config(BaseSettings):
    """Everything that can be set. Times are in seconds."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="BERTH_", env_nested_delimiter="__", env_ignore_empty=True
    )

    levels: list[LevelSetting] = LEVELS  # topology levels, broadest first
    gate_timeout_seconds: Seconds = 300.0  # an attempt whose pods are not all there by then is requeued
    bind_timeout_seconds: Seconds = 60.0  # a pinned pod unbound for longer is replaced
    avoid_seconds: Seconds = 120.0  # how long a node that refused a member is avoided; doubles each time
    relayout_timeout_seconds: Seconds = 300.0  # an attempt to lay out boards that takes longer is begun again
    relayout_pause_seconds: Seconds = 600.0  # a board that Berth laid out is not laid out again before
    stale_seconds: Seconds = 180.0  # a node whose agent was not heard for longer is not laid out anew
    cycle_debounce_seconds: float = Field(0.05, ge=0, le=60)  # changes that come this close together share a cycle
    default_queue: str = Field("default", min_length=1, max_length=63)  # of work that names none; unlimited
    backfill: BackfillSetting = BackfillSetting()
    consolidation: ConsolidationSetting = ConsolidationSetting()
    fair_share: FairShareSetting = FairShareSetting()
    preemption: PreemptionSetting = PreemptionSetting()
    elastic: ElasticSetting = ElasticSetting()
    carbon: CarbonSetting = CarbonSetting()
    pools: list[PoolSetting] = []  # that an autoscaler can grow
    prices_file: str = ""  # of what boards cost (YAML); "": they cost their list prices
    prices: PricesSetting = PricesSetting()
    log_format: Literal["json", "text"] = "json"  # text is for people
    log_level: Literal["debug", "info", "warning", "error"] = "info"  # the least that is logged
    leader_election: LeaderElection = LeaderElection()
    mig_manager: MigManagerSetting = MigManagerSetting()
    progress_host: str = Field("", max_length=253)  # that jobs reach the progress endpoint by; "": there is none
    progress_port: Port = 8443  # of the progress endpoint, over TLS
    metrics_port: Port = 8080  # of /metrics
    health_port: Port = 8081  # of /healthz and /readyz

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, whose fields `load` hands in."""
        return env_settings, init_settings

    @field_validator("levels")
    @classmethod
    def _levels_differ(cls, levels: list[LevelSetting]) -> list[LevelSetting]:
        _each_once([level.name for level in levels], "level")
        return levels

    @field_validator("pools")
    @classmethod
    def _pools_differ(cls, pools: list[PoolSetting]) -> list[PoolSetting]:
        _each_once([pool.name for pool in pools], "pool")
        return pools

    def policy(self) -> Policy:
        """What the planner needs of it."""
        return Policy(
            levels=tuple(Level(level.name, tuple(level.labels)) for level in self.levels),
            bind_timeout_seconds=self.bind_timeout_seconds,
            avoid_seconds=self.avoid_seconds,
            gate_timeout_seconds=self.gate_timeout_seconds,
            relayout_timeout_seconds=self.relayout_timeout_seconds,
            relayout_pause_seconds=self.relayout_pause_seconds,
            stale_seconds=self.stale_seconds,
            default_queue=self.default_queue,
            consolidation=self.consolidation.rules(),
            half_life_hours=self.fair_share.half_life_hours,
            backfill=self.backfill.rules(),
            preemption=Preempting(self.preemption.min_runtime_seconds, self.preemption.restart_seconds),
            pools=tuple(pool.pool() for pool in self.pools),
            growing=Growing(self.elastic.min_runtime_seconds, self.elastic.restart_seconds),
        )


def _times_of_day(text: str) -> tuple[int, int] | None:
    """Two times of day, in seconds after midnight; None where there are none, or closer than SHORTEST_QUIET.

    >>> _times_of_day("22:00-06:30")
    (79200, 23400)
    """
    found = HOURS.fullmatch(text)
    if found is None:
        return None
    hour, minute, last_hour, last_minute = (int(part) for part in found.groups())
    begins, ends = hour * 3600 + minute * 60, last_hour * 3600 + last_minute * 60
    return (begins, ends) if (ends - begins) % DAY_SECONDS >= SHORTEST_QUIET else None


def load(file: Path | None = None) -> Config:
    """The configuration of a file, or the defaults, under what the environment says. Raises ConfigError."""
    try:
        text = file.read_text() if file else ""
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        fields = yaml.safe_load(text) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{file}: must hold fields and their values, such as logFormat: text")
    try:
        return Config(**snake(fields))
    except SettingsError as error:
        raise ConfigError(f"environment: {error}") from error
    except ValidationError as error:
        raise ConfigError(_explain(error, file, root)) from error


def snake(value: Any) -> Any:
    """The file's fields under the names that the models have; the keys of labels are nobody's fields."""
    if isinstance(value, Mapping):
        return {to_snake(str(key)): item if key == "labels" else snake(item) for key, item in value.items()}
    return [snake(item) for item in value] if isinstance(value, list) else value


def _explain(error: ValidationError, file: Path | None, root: yaml.Node | None) -> str:
    variable = "BERTH_" + "__".join(str(part) for part in error.errors()[0]["loc"]).upper()
    return explained(error, str(file), root, variable if variable in os.environ else "")


def explained(error: ValidationError, file: str, root: yaml.Node | None, where: str = "") -> str:
    """Where the first bad field stands (`where`, or its line in the file), its name, what it must be and what it is."""
    first = error.errors(include_url=False)[0]
    problem = first_problem(error)
    location = [part if isinstance(part, int) else to_camel(part) for part in first["loc"]]
    given = "" if first["type"] in ("extra_forbidden", "missing", "value_error") else f", got {first['input']!r}"
    where = where or f"{file}:{line_of(root, location)}"
    return ": ".join(part for part in (where, path(*location), problem.message) if part) + given


def line_of(node: yaml.Node | None, location: Sequence[str | int]) -> int:
    """The line, from 1, of a field, or of the closest thing around it."""
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            found = (node.value[part], node.value[part])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
