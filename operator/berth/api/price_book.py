"""The price book, as YAML or JSON.

spotShare: 0.3
egressUsdPerGb: 0.02
prices:
  - {model: H100, region: us-east-1, usdPerHour: 6.9}
  - {model: H100, region: us-east-1, capacity: spot, usdPerHour: 2.5}
owned:
  - {model: A100-80GB, region: basement, usd: 16000, years: 4, usdPerKwh: 0.21, pue: 1.4}
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from berth.api.config import ConfigError, Section, explained, snake
from berth.model.energy import USUAL_PUE
from berth.model.gpus import MODELS
from berth.model.prices import EGRESS_USD_PER_GB, SPOT_SHARE, CapacityType, Owned, Price, PriceBook

Dollars = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class _Entry(Section):
    model: str
    region: str = ""  # "": all that no other entry names

    @field_validator("model")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if not any(model.answers_to(name) for model in MODELS):
            families = ", ".join(dict.fromkeys(model.family for model in MODELS))
            raise ValueError(f"there is no model {name!r}: wanted a family ({families}) or one of its models")
        return name


class _Price(_Entry):
    usd_per_hour: Dollars
    capacity: CapacityType = CapacityType.ON_DEMAND


class _Owned(_Entry):
    usd: Dollars
    years: float = Field(gt=0, le=20)
    usd_per_kwh: Dollars
    pue: float = Field(USUAL_PUE, ge=1, le=4)


class Book(Section):
    """All prices."""

    spot_share: float = Field(SPOT_SHARE, gt=0, le=1)
    egress_usd_per_gb: Dollars = EGRESS_USD_PER_GB
    prices: list[_Price] = Field(default_factory=list)
    owned: list[_Owned] = Field(default_factory=list)

    @model_validator(mode="after")
    def _says_once(self) -> Book:
        named = [("prices", p.model.lower(), p.region, p.capacity.value) for p in self.prices]
        named += [("owned", o.model.lower(), o.region, "") for o in self.owned]
        if twice := [entry for entry, count in Counter(named).items() if count > 1]:
            kind, model, region, capacity = twice[0]
            words = " ".join(word for word in (model, capacity, f"in {region}" if region else "") if word)
            raise ValueError(f"{kind} has {words} twice: leave one of them")
        return self

    def book(self) -> PriceBook:
        """What the planner needs of it."""
        return PriceBook(
            tuple(Price(p.model, p.usd_per_hour, p.region, p.capacity) for p in self.prices),
            tuple(Owned(o.model, o.usd, o.years, o.usd_per_kwh, o.region, o.pue) for o in self.owned),
            self.spot_share,
            self.egress_usd_per_gb,
        )


def price_book(text: str, file: str) -> PriceBook:
    """The book that a file holds; `file` is what messages call it. Raises ConfigError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        fields: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{file}: must hold prices, such as prices: [{{model: H100, usdPerHour: 6.9}}]")
    try:
        return Book(**snake(fields)).book()
    except ValidationError as error:
        raise ConfigError(explained(error, file, root)) from error
