"""What an hour of a board costs: by model, region and capacity type, bought or owned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from berth.model.energy import PUE, USUAL_PUE, board_watts, drawn_watts
from berth.model.gpus import BoardModel

HOURS_OF_A_YEAR = 8760
BUSY = 0.8  # utilisation at which the power of owned boards is reckoned: they are bought to be used
EGRESS_USD_PER_GB = 0.02  # between regions, as the large clouds charge in North America and Europe
SPOT_SHARE = 0.35  # of the price on demand where no spot price is known: spot saves 60 to 90 %
REGION_LABELS = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
ZONE_LABELS = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")


class CapacityType(StrEnum):
    """How a node is paid for."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    RESERVED = "reserved"


# Node labels that tell the capacity type; a node that has none of them is on demand.
CAPACITY_LABELS: Mapping[str, Mapping[str, CapacityType]] = {
    "karpenter.sh/capacity-type": {
        "spot": CapacityType.SPOT,
        "on-demand": CapacityType.ON_DEMAND,
        "reserved": CapacityType.RESERVED,
    },
    "eks.amazonaws.com/capacityType": {
        "SPOT": CapacityType.SPOT,
        "ON_DEMAND": CapacityType.ON_DEMAND,
        "CAPACITY_BLOCK": CapacityType.RESERVED,
    },
    "cloud.google.com/gke-spot": {"true": CapacityType.SPOT},
    "cloud.google.com/gke-preemptible": {"true": CapacityType.SPOT},
    "kubernetes.azure.com/scalesetpriority": {"spot": CapacityType.SPOT},
}


def capacity_of(labels: Mapping[str, str]) -> CapacityType:
    """How the node with these labels is paid for."""
    told = (kinds.get(labels.get(label, "")) for label, kinds in CAPACITY_LABELS.items())
    return next((kind for kind in told if kind), CapacityType.ON_DEMAND)


def region_of(labels: Mapping[str, str]) -> str:
    """The region of the node with these labels; "" where none says."""
    return next((labels[label] for label in REGION_LABELS if labels.get(label)), "")


# What the names of labels begin with that a cloud gives its nodes.
CLOUD_LABELS = (("eks.amazonaws.com/", "aws"), ("topology.k8s.aws/", "aws"), ("cloud.google.com/", "gcp"))


def cloud_of(labels: Mapping[str, str]) -> str:
    """The cloud of the node with these labels, as `energy.PUE` names it; "" where none says."""
    return next((cloud for begin, cloud in CLOUD_LABELS if any(name.startswith(begin) for name in labels)), "")


@dataclass(frozen=True, slots=True)
class Place:
    """How a node is paid for, and where it draws its power."""

    region: str = ""
    capacity: CapacityType = CapacityType.ON_DEMAND
    cloud: str = ""


def place_of(labels: Mapping[str, str]) -> Place:
    """That of the node with these labels."""
    return Place(region_of(labels), capacity_of(labels), cloud_of(labels))


def zone_of(labels: Mapping[str, str]) -> str:
    """The zone of the node with these labels; "" where none says."""
    return next((labels[label] for label in ZONE_LABELS if labels.get(label)), "")


@dataclass(frozen=True, slots=True)
class Price:
    """What the boards of a model, or of a family, cost where they are rented."""

    model: str
    usd_per_hour: float  # a board
    region: str = ""  # "": all that no other price names
    capacity: CapacityType = CapacityType.ON_DEMAND

    def of(self, model: BoardModel) -> float:
        """Dollars for an hour of a board."""
        return self.usd_per_hour


@dataclass(frozen=True, slots=True)
class Owned:
    """What the boards of a model, or of a family, cost where they are owned: they lose value, and draw power."""

    model: str
    usd: float  # to buy one board, with its share of the node
    years: float  # until it is worth nothing
    usd_per_kwh: float
    region: str = ""
    pue: float = USUAL_PUE

    def of(self, model: BoardModel) -> float:
        """Dollars for an hour of a board: depreciation and power."""
        kilowatts = drawn_watts(1, board_watts(model, BUSY), pue=self.pue) / 1000
        return self.usd / (self.years * HOURS_OF_A_YEAR) + kilowatts * self.usd_per_kwh


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All prices that are known. What it lacks costs its list price, an order of magnitude."""

    prices: tuple[Price, ...] = ()
    owned: tuple[Owned, ...] = ()
    spot_share: float = SPOT_SHARE
    egress_usd_per_gb: float = EGRESS_USD_PER_GB  # GB (1e9 bytes) that go from one region to another

    def usd_per_hour(self, model: BoardModel, region: str, capacity: CapacityType) -> float:
        """The price of an hour of one board. Of several entries the one counts that

        1. is of this capacity type (reserved: else that on demand; spot: else its share of that on demand),
        2. names the region, not all of them,
        3. names the model, not its family,
        4. is of boards that are owned,
        5. stands first.
        """
        if capacity is not CapacityType.ON_DEMAND and (own := _best(model, region, self._rented(capacity))):
            return own.of(model)
        found = self._usual(model, region)
        usd = found.of(model) if found else model.usd_per_hour
        return usd * self.spot_share if capacity is CapacityType.SPOT else usd

    def over(self, base: PriceBook) -> PriceBook:
        """This book, and of another what it says nothing of."""
        named = {(price.model.lower(), price.region, price.capacity) for price in self.prices}
        owned = {(own.model.lower(), own.region) for own in self.owned}
        rest = (p for p in base.prices if (p.model.lower(), p.region, p.capacity) not in named)
        others = (o for o in base.owned if (o.model.lower(), o.region) not in owned)
        share = base.spot_share if self.spot_share == SPOT_SHARE else self.spot_share
        egress = base.egress_usd_per_gb if self.egress_usd_per_gb == EGRESS_USD_PER_GB else self.egress_usd_per_gb
        return PriceBook((*self.prices, *rest), (*self.owned, *others), share, egress)

    def pue(self, model: BoardModel, place: Place) -> float:
        """By how much the building adds to what hosts draw: as the entry of owned boards says, else as usual there."""
        found = self._usual(model, place.region)
        return found.pue if isinstance(found, Owned) else PUE.get(place.cloud, USUAL_PUE)

    def _usual(self, model: BoardModel, region: str) -> Price | Owned | None:
        return _best(model, region, [*self.owned, *self._rented(CapacityType.ON_DEMAND)])

    def _rented(self, capacity: CapacityType) -> list[Price]:
        return [price for price in self.prices if price.capacity is capacity]


@dataclass(frozen=True, slots=True)
class KnownPrices:
    """The last live prices."""

    source: str
    told_at: float  # seconds since the epoch
    book: PriceBook


def _best(model: BoardModel, region: str, entries: Iterable[Price | Owned]) -> Price | Owned | None:
    fitting = [e for e in entries if model.answers_to(e.model) and e.region in ("", region)]
    return max(fitting, key=lambda e: (e.region != "", e.model.lower() != model.family.lower()), default=None)
