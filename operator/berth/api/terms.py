"""When and where work may run, for the sake of money and carbon."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from berth.api.common import Duration
from berth.api.schema import Fields, Text, rule, rules

Spot = Literal["Never", "Allow", "Only"]

_MOMENT = "must be a time with its zone, such as 2026-03-02T06:00:00Z"
_SHARE = "must be a percentage from 0% to 100%, such as 5%"
_ONE_OF = "set exactly one of pricePerTonne (dollars) and budget (how much dearer than the cheapest it may be)"


def _exists(text: str) -> str:
    try:
        datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise ValueError(_MOMENT) from error
    return text


Moment = Annotated[
    str,
    Text(
        (
            r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?(Z|[-+][0-2][0-9]:[0-5][0-9])$",
        ),
        _MOMENT,
        40,
    ),
    AfterValidator(_exists),
]


class CarbonWorth(Fields):
    """What emitting less is worth."""

    model_config = ConfigDict(json_schema_extra=rules(rule("has(self.pricePerTonne) != has(self.budget)", _ONE_OF)))

    price_per_tonne: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    """Dollars for each tonne of CO2e that is not emitted: these, and the boards' price, are what is kept low."""
    budget: Annotated[str, Text(("^([0-9]|[1-9][0-9]|100)%$",), _SHARE, 4)] | None = None
    """Least CO2e, at a cost at most so much above the least, such as 5%."""

    @model_validator(mode="after")
    def _says_which(self) -> CarbonWorth:
        if (self.price_per_tonne is None) == (self.budget is None):
            raise ValueError(_ONE_OF)
        return self


class Carbon(CarbonWorth):
    """What emitting less is worth, and how long it may take."""

    max_delay: Duration | None = None
    """How much later than at once it may end because of that, such as 12h. Absent: as late as the deadline allows;
    without one too, it does not wait."""
