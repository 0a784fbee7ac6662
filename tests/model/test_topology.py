"""The ladder of levels."""

from __future__ import annotations

from berth.model.topology import DEFAULT_LEVELS, Level, domains_of, islands_of


def test_the_first_label_present_names_the_domain() -> None:
    levels = (Level("rack", ("our/rack", "their/rack")), Level("node", ("host",)))
    assert domains_of({"their/rack": "r2", "host": "n1"}, levels) == ("r2", "n1")
    assert domains_of({"our/rack": "r1", "their/rack": "r2"}, levels) == ("r1", "")
    assert domains_of({"our/rack": "", "their/rack": "r2"}, levels) == ("r2", "")


def test_the_ladder_goes_from_the_broadest_to_the_closest() -> None:
    assert [level.name for level in DEFAULT_LEVELS] == ["region", "zone", "block", "leaf", "rack", "nvlink", "node"]


def test_no_label_names_two_levels() -> None:
    labels = [label for level in DEFAULT_LEVELS for label in level.labels]
    assert len(set(labels)) == len(labels)


def test_links_to_boards_that_are_not_there_count_for_nothing() -> None:
    assert islands_of(((0, 0, 4), (0, 0))) == (0, 1)
