"""The price book: which entry counts, what owned boards cost, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.adapters.prices import PriceFile, PriceUrl
from berth.api import price_book as example
from berth.api.config import ConfigError
from berth.api.price_book import price_book
from berth.control.ports import Denied, Silent, Unusable
from berth.model.gpus import MODELS, BoardModel
from berth.model.prices import CapacityType, Owned, Price, PriceBook, capacity_of, region_of
from tests.adapters.carbon.world import Server, body, serving

SPOT, ON_DEMAND, RESERVED = CapacityType.SPOT, CapacityType.ON_DEMAND, CapacityType.RESERVED
BOOK = """
spotShare: 0.5
prices:
  - {model: H100, usdPerHour: 8}
  - {model: H100, region: us-east-1, usdPerHour: 7}
  - {model: H100-80GB, region: us-east-1, usdPerHour: 6}
  - {model: h100, region: us-east-1, capacity: spot, usdPerHour: 2.5}
  - {model: H100, region: us-east-1, capacity: reserved, usdPerHour: 4}
owned:
  - {model: A100, region: basement, usd: 17520, years: 4, usdPerKwh: 0.2, pue: 1.5}
"""


def model(name: str) -> BoardModel:
    return next(m for m in MODELS if m.name == name)


def usd(name: str, region: str, capacity: CapacityType, text: str = BOOK) -> float:
    return price_book(text, "book.yaml").usd_per_hour(model(name), region, capacity)


@pytest.mark.parametrize(
    ("name", "region", "capacity", "dollars"),
    [
        ("H100-80GB", "us-east-1", ON_DEMAND, 6),  # the model before its family
        ("H100-94GB", "us-east-1", ON_DEMAND, 7),  # the region before all regions
        ("H100-80GB", "eu-west-1", ON_DEMAND, 8),
        ("H100-80GB", "us-east-1", SPOT, 2.5),
        ("H100-80GB", "us-east-1", RESERVED, 4),
        ("H100-80GB", "eu-west-1", SPOT, 4),  # half of that on demand
        ("H100-80GB", "eu-west-1", RESERVED, 8),
        ("L4", "us-east-1", ON_DEMAND, 0.8),  # not in the book: its list price
        ("L4", "us-east-1", SPOT, 0.4),
    ],
)
def test_the_nearest_entry_counts(name: str, region: str, capacity: CapacityType, dollars: float) -> None:
    assert usd(name, region, capacity) == pytest.approx(dollars)


def test_owned_boards_cost_what_they_lose_and_draw() -> None:
    watts = 400 * (0.115 + 0.8 * 0.885) * 1.5 * 1.5  # at 80 %, with the host and the building
    assert usd("A100-80GB", "basement", ON_DEMAND) == pytest.approx(17520 / (4 * 8760) + watts / 1000 * 0.2)
    assert usd("A100-80GB", "attic", ON_DEMAND) == 4.1


@given(st.permutations([Price("H100", 8), Price("H100-80GB", 6), Price("H100", 7, "r"), Price("H100", 2, "r", SPOT)]))
def test_the_order_of_a_book_does_not_matter(prices: list[Price]) -> None:
    book = PriceBook(tuple(prices))
    assert [book.usd_per_hour(model("H100-80GB"), "r", kind) for kind in (ON_DEMAND, SPOT)] == [7, 2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prices: [{model: H100}]", "book.yaml:1: prices[0].usdPerHour: required, but missing"),
        (
            "prices:\n- {model: H100, usdPerHour: -1}",
            "book.yaml:2: prices[0].usdPerHour: must be greater than or equal",
        ),
        ("prices:\n- {model: H100, usdPerHour: .nan}", "book.yaml:2: prices[0].usdPerHour: "),
        ("prices:\n- {model: H100, usdPerHour: cheap}", "prices[0].usdPerHour: must be a valid number.*got 'cheap'"),
        ("prices:\n- {model: HAL, usdPerHour: 1}", "prices[0].model: there is no model 'HAL': wanted a family"),
        ("prices:\n- {model: H100, usdPerHour: 1, capacity: cheap}", "prices[0].capacity: must be 'on-demand'"),
        ("prices:\n- {model: H100, usdPerHour: 1, zone: a}", "prices[0].zone: unknown field"),
        ("owned: [{model: H100, usd: 1, years: 0, usdPerKwh: 0.1}]", "owned[0].years: must be greater than 0"),
        ("owned: [{model: H100, usd: 1, years: 4, usdPerKwh: 0.1, pue: 0.9}]", "owned[0].pue: "),
        ("spotShare: 2", "book.yaml:1: spotShare: must be less than or equal to 1"),
        (
            "prices: [{model: H100, usdPerHour: 1}, {model: h100, usdPerHour: 2}]",
            "book.yaml:1: prices has h100 on-demand twice",
        ),
        ("- 1", "must hold prices, such as"),
        ("a: [", "book.yaml: while parsing"),
    ],
)
def test_says_which_field_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        price_book(text, "book.yaml")
    beginning, _, rest = complaint.partition(".*")
    assert beginning in str(caught.value)
    assert rest in str(caught.value)


def test_the_example_is_a_book() -> None:
    assert example.__doc__ is not None
    found = price_book(example.__doc__.split("\n\n", 1)[1], "example")
    assert (len(found.prices), len(found.owned), found.spot_share) == (2, 1, 0.3)


def test_an_empty_book_has_list_prices() -> None:
    assert usd("L4", "", ON_DEMAND, "") == 0.8


@pytest.mark.parametrize(
    ("labels", "capacity"),
    [
        ({}, ON_DEMAND),
        ({"karpenter.sh/capacity-type": "spot"}, SPOT),
        ({"karpenter.sh/capacity-type": "on-demand"}, ON_DEMAND),
        ({"karpenter.sh/capacity-type": "reserved"}, RESERVED),
        ({"eks.amazonaws.com/capacityType": "SPOT"}, SPOT),
        ({"cloud.google.com/gke-spot": "true"}, SPOT),
        ({"cloud.google.com/gke-spot": "false"}, ON_DEMAND),
        ({"kubernetes.azure.com/scalesetpriority": "spot"}, SPOT),
        ({"kubernetes.azure.com/scalesetpriority": "regular"}, ON_DEMAND),
    ],
)
def test_labels_say_how_a_node_is_paid_for(labels: dict[str, str], capacity: CapacityType) -> None:
    assert capacity_of(labels) is capacity


def test_a_label_says_where_a_node_is() -> None:
    assert (region_of({"topology.kubernetes.io/region": "us-east-1"}), region_of({})) == ("us-east-1", "")


async def test_a_file_and_an_address_tell_the_same_book(tmp_path: Path) -> None:
    (tmp_path / "book.yaml").write_text(BOOK)
    (tmp_path / "token").write_text("t")
    book = await PriceFile(tmp_path / "book.yaml", price_book).book()
    assert book.owned == (Owned("A100", 17520, 4, 0.2, "basement", 1.5),)
    server = Server({"/prices": {"prices": [{"model": "H100", "usdPerHour": 7}]}})
    async with serving(server) as web:
        found = await PriceUrl(web, "/prices", price_book, tmp_path).book()
    assert found == PriceBook((Price("H100", 7),))
    assert server.requests[0].headers["Authorization"] == "Bearer t"


async def test_books_that_can_not_be_had_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(Silent, match="No such file"):
        await PriceFile(tmp_path / "none", price_book).book()
    (tmp_path / "book.yaml").write_text("spotShare: 2")
    with pytest.raises(Unusable, match="spotShare"):
        await PriceFile(tmp_path / "book.yaml", price_book).book()
    async with serving(Server(mishaps=[body(b'{"spotShare": 2}'), body(b"{")])) as web:
        for complaint in ("/prices:1: spotShare", "truncated"):
            with pytest.raises(Unusable, match=complaint):
                await PriceUrl(web, "/prices", price_book).book()
        with pytest.raises(Denied, match="No such file"):
            await PriceUrl(web, "/prices", price_book, tmp_path).book()


def test_live_prices_replace_those_of_the_file_for_the_same_and_no_others() -> None:
    file = price_book(BOOK, "book")
    live = PriceBook((Price("H100", 1.0, "us-east-1"), Price("h100", 9.0)))
    found = live.over(file)
    kept = [
        price
        for price in file.prices
        if (price.model, price.region, price.capacity)
        not in {("H100", "us-east-1", ON_DEMAND), ("H100", "", ON_DEMAND)}
    ]
    assert found == PriceBook((*live.prices, *kept), file.owned, file.spot_share)
    assert PriceBook().over(file) == file
