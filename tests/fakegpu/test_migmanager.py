"""mig-manager's rules about entries, delays and boards."""

from __future__ import annotations

import pytest

from e2e.fakegpu.hardware import Wanted
from e2e.fakegpu.migmanager import ConfigError, DelayedConfig, MigManager, parse_configs
from e2e.fakegpu.node import Holder, Node
from tests.fakegpu.machines import a_fleet, change, mig_configs

HALVES = mig_configs(halves=[change("all", p_3g_40gb=2)], whole=[change("all")])


def a_manager(boards: int = 2) -> MigManager:
    fleet = a_fleet(count=1, boardsPerNode=boards)
    return MigManager(Node.of(fleet, next(fleet.fake_nodes())), apply_seconds=2)


def states(manager: MigManager, label: str, config: str, until: int = 5) -> list[str]:
    """The states after each second, starting with the moment of the label."""
    seen = []
    manager.label(label)
    for now in range(until):
        manager.step(now, config)
        seen.append(manager.state)
    return seen


def test_is_pending_until_the_boards_are_laid() -> None:
    assert states(a_manager(), "halves", HALVES) == ["pending", "pending", "success", "success", "success"]


def test_succeeds_at_once_where_the_multiset_is_there_already() -> None:
    manager = a_manager(boards=1)
    (board,) = manager.node.boards
    board.lay(True, [Wanted("3g.40gb", 4), Wanted("3g.40gb", 0)])
    before = list(board.instances)
    assert states(manager, "halves", HALVES, until=1) == ["success"]
    assert board.instances == before


def test_fails_at_once_on_an_entry_that_the_file_lacks() -> None:
    manager = a_manager()
    assert states(manager, "thirds", HALVES, until=2) == ["failed", "failed"]
    assert not manager.node.hidden


def test_does_not_notice_that_a_missing_entry_appeared_until_the_label_changes() -> None:
    manager = a_manager()
    states(manager, "halves", mig_configs(whole=[change("all")]), until=1)
    assert states(manager, "halves", HALVES)[-1] == "failed"
    assert states(manager, "", HALVES, until=1) == ["failed"]
    assert states(manager, "halves", HALVES, until=1) == ["pending"]


def test_of_changes_amid_its_work_only_what_they_came_to_counts() -> None:
    manager = a_manager()
    states(manager, "halves", HALVES, until=1)
    for name in ("whole", "", "halves"):
        manager.label(name)
    assert states(manager, "halves", HALVES) == ["pending", "pending", "success", "success", "success"]
    states(manager, "whole", HALVES, until=1)
    manager.label("halves")
    seen = states(manager, "halves", HALVES, until=7)
    assert seen == ["pending", "pending", "success", "pending", "pending", "success", "success"]
    assert manager.node.boards[0].profiles() == {"3g.40gb": 2}


def test_does_not_notice_an_entry_edited_in_place() -> None:
    manager = a_manager()
    states(manager, "halves", HALVES)
    edited = mig_configs(halves=[change("all", p_7g_80gb=1)])
    assert states(manager, "halves", edited)[-1] == "success"
    assert manager.node.boards[0].profiles() == {"3g.40gb": 2}


def test_boards_before_a_busy_one_are_changed_all_the_same() -> None:
    manager = a_manager(boards=3)
    manager.node.adopt(Holder("default", "pod"), [manager.node.boards[1].uuid])
    assert states(manager, "halves", HALVES)[-1] == "failed"
    assert [board.mig_enabled for board in manager.node.boards] == [True, False, False]


def test_leaves_boards_alone_that_the_entry_does_not_name() -> None:
    manager = a_manager()
    config = mig_configs(one=[change([1], p_7g_80gb=1)])
    assert states(manager, "one", config)[-1] == "success"
    assert [board.mig_enabled for board in manager.node.boards] == [False, True]


def test_fails_on_a_layout_that_fits_no_board() -> None:
    manager = a_manager()
    assert states(manager, "mad", mig_configs(mad=[change("all", p_4g_40gb=2)]))[-1] == "failed"
    assert "2 x 4g.40gb" in manager.reason


def test_makes_whole_boards_of_instances_again() -> None:
    manager = a_manager()
    states(manager, "halves", HALVES)
    assert manager.node.allocatable() == {"nvidia.com/mig-3g.40gb": 4}
    states(manager, "whole", HALVES)
    assert manager.node.allocatable() == {"nvidia.com/gpu": 2, "nvidia.com/mig-3g.40gb": 0}


def test_names_of_other_drivers_mean_the_same_profile() -> None:
    manager = a_manager()
    states(manager, "old", mig_configs(old=[change("all", p_7g_79gb=1)]))
    assert manager.node.boards[0].profiles() == {"7g.80gb": 1}
    assert states(manager, "new", mig_configs(new=[change("all", p_7g_80gb=1)]), until=1) == ["success"]


def test_a_mounted_file_lags_behind_its_config_map() -> None:
    config = DelayedConfig(delay_seconds=5)
    config.write(0, "first")
    config.write(10, "second")
    assert [config.read(now) for now in (5, 14, 15)] == ["first", "first", "second"]


@pytest.mark.parametrize("text", ["[", "version: v2\nmig-configs: {}", "{}", "version: v1\nmig-configs: {a: [{}]}", ""])
def test_says_what_is_wrong_with_a_configuration(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_configs(text)
