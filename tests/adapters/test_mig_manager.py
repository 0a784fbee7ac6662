"""Entries of mig-manager's configuration: named after what they say, and written without disturbing the others."""

from __future__ import annotations

import pytest
import yaml

from berth.adapters.mig_manager import entry_of, names_for, with_entries
from berth.control.ports import Refused
from tests.planning.boards import board
from tests.planning.builders import model

A100 = model("A100-80GB")
ENTRY = entry_of((board(0, "7x1g.10gb", A100),))
TEXT = """version: v1
mig-configs:
  # for the night shift
  all-disabled:
    - devices: all
      mig-enabled: false

  berth-0123456789ab-1: [{"devices": [0], "mig-enabled": false, "mig-devices": {}}]
"""


def test_an_entry_speaks_of_every_board_those_alike_together() -> None:
    boards = tuple(board(i, layout, A100) for i, layout in enumerate((None, "7x1g.10gb", None, "3g.40gb 4x1g.10gb")))
    assert entry_of(boards) == [
        {"devices": [0, 2], "mig-enabled": False, "mig-devices": {}},
        {"devices": [1], "mig-enabled": True, "mig-devices": {"1g.10gb": 7}},
        {"devices": [3], "mig-enabled": True, "mig-devices": {"1g.10gb": 4, "3g.40gb": 1}},
    ]


def test_a_name_is_never_the_present_one_and_has_a_spare() -> None:
    first, spare = names_for(ENTRY, "all-disabled")
    assert names_for(ENTRY, first)[0] == spare
    assert names_for(ENTRY, spare)[0] not in (first, spare)
    assert names_for([], first)[0].rpartition("-")[0] != first.rpartition("-")[0]


def test_entries_come_and_go_as_lines_and_the_rest_stays_as_it_was() -> None:
    written = with_entries(TEXT, {"berth-aaaaaaaaaaaa-1": ENTRY}, in_use=[])
    assert yaml.safe_load(written)["mig-configs"] == {
        "berth-aaaaaaaaaaaa-1": ENTRY,
        "all-disabled": [{"devices": "all", "mig-enabled": False}],
    }
    lines = TEXT.splitlines()
    assert [line for line in lines if "berth" not in line] == [
        line for line in written.splitlines() if "berth" not in line
    ]


def test_what_is_there_already_is_not_written_again() -> None:
    once = with_entries(TEXT, {"berth-aaaaaaaaaaaa-1": ENTRY}, in_use=[])
    assert with_entries(once, {"berth-aaaaaaaaaaaa-1": ENTRY}, in_use=["berth-aaaaaaaaaaaa-1"]) == once


@pytest.mark.parametrize(
    "text", ["version: v1\nmig-configs: {}\n", "{version: v1, mig-configs: {mine: []}}", "mig-configs:\nversion: v1\n"]
)
def test_a_configuration_of_another_form_is_written_anew_and_says_the_same(text: str) -> None:
    before = yaml.safe_load(text)
    after = yaml.safe_load(with_entries(text, {"berth-aaaaaaaaaaaa-1": ENTRY}, in_use=[]))
    assert after == {**before, "mig-configs": {"berth-aaaaaaaaaaaa-1": ENTRY, **(before["mig-configs"] or {})}}


@pytest.mark.parametrize("text", ["mig-configs: [", "- 1", "version: v2\nmig-configs: {}", "version: v1"])
def test_what_is_no_configuration_is_left_alone(text: str) -> None:
    with pytest.raises(Refused, match="mig-manager's configuration"):
        with_entries(text, {"berth-aaaaaaaaaaaa-1": ENTRY}, in_use=[])
