"""Boards are laid out anew where that gives a waiting job its place, and never one that somebody holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from berth.model.nodes import Node, Progress, Trouble, Way
from berth.model.workloads import Queue, Workload
from berth.planning.actions import Admit, EndLayout, LayOut, Plan
from berth.planning.ahead import changed_node
from berth.planning.plan import plan
from berth.planning.snapshot import Policy, Snapshot
from tests.planning.boards import a_laid_node, holding, used, words
from tests.planning.builders import NOW, a_job, a_service, nodes_of, only, shape, verdict_of


def plan_for(nodes: list[Node], *jobs: Workload, now: float = NOW, **more: Any) -> Plan:
    """The plan for these nodes, whose holders are pods that are there."""
    observed = {n.name: NOW for n in nodes}
    facts = {"used": used(*nodes), "holding": holding(*nodes), "observed": observed, **more}
    return plan(Snapshot({n.name: n for n in nodes}, workloads=jobs, **facts), Policy(), now)


def begun(plan: Plan) -> dict[str, dict[int, str]]:
    """What is begun, by node and board."""
    return {a.node: dict(words(a.relayout.boards)) for a in plan.layouts if isinstance(a, LayOut)}


def under_way(node: Node, plan: Plan, **changes: Any) -> Node:
    """The node while what the plan begins on it goes on."""
    (action,) = (a for a in plan.layouts if isinstance(a, LayOut) and a.node == node.name)
    landed = changed_node(node, action.relayout.boards)
    return replace(node, allocatable=landed.allocatable, relayout=replace(action.relayout, **changes))


def test_an_idle_board_is_laid_out_for_a_profile_that_is_not_there() -> None:
    made = plan_for([a_laid_node("n", "7x1g.10gb")], a_job(profile="3g.40gb"))
    assert begun(made) == {"n": {0: "1g.10gb 1g.10gb 1g.10gb 1g.10gb 3g.40gb"}}
    assert verdict_of(made).reason == "WaitingForRepartition"
    assert verdict_of(made).message == (
        "waits for n (board 0 as 3g.40gb + 4 x 1g.10gb) to be laid out: about 90 s, at a price of $0.20"
    )


def test_a_board_with_a_held_instance_is_left_alone() -> None:
    made = plan_for([a_laid_node("n", "6x1g.10gb 1g.10gb!")], a_job(profile="3g.40gb"))
    assert made.layouts == ()
    assert verdict_of(made).reason == "NoFeasibleMigLayout"


def test_of_two_boards_the_idle_one_is_laid_out() -> None:
    made = plan_for([a_laid_node("n", "6x1g.10gb 1g.10gb!", "7x1g.10gb")], a_job(profile="3g.40gb"))
    assert list(begun(made)["n"]) == [1]


def test_the_agent_works_beside_a_held_instance_and_keeps_it() -> None:
    nodes = [a_laid_node("n", "6x1g.10gb 1g.10gb!", way=Way.AGENT)]
    (action,) = plan_for(nodes, a_job(profile="3g.40gb")).layouts
    assert isinstance(action, LayOut)
    (layout,) = action.relayout.boards
    (held,) = (i for i in nodes[0].boards[0].instances if i.holder)
    assert (held.profile, held.start) in [(i.profile, i.start) for i in layout.instances]
    assert "3g.40gb" in words(action.relayout.boards)[0]


def test_nothing_is_laid_out_while_a_pod_of_the_node_has_no_device_yet() -> None:
    nodes = [a_laid_node("n", "7x1g.10gb", "7x1g.10gb")]
    on_its_way = {"n": {"other/new": NOW - 1}}
    made = plan_for(nodes, a_job(profile="3g.40gb"), used={"n": {"nvidia.com/mig-1g.10gb": 1}}, holding=on_its_way)
    assert made.layouts == ()


def test_nothing_is_laid_out_on_a_stale_report() -> None:
    nodes = [a_laid_node("n", "7x1g.10gb")]
    assert plan_for(nodes, a_job(profile="3g.40gb"), observed={"n": NOW - 200}).layouts == ()


def test_nothing_is_laid_out_where_this_plan_puts_somebody() -> None:
    nodes = [a_laid_node("n", "7x1g.10gb", "7x1g.10gb")]
    made = plan_for(nodes, a_job("small", profile="1g.10gb"), a_job(profile="3g.40gb", created=1.0))
    assert nodes_of(made, "small") == ("n",)
    assert made.layouts == ()


def test_jobs_that_one_layout_serves_share_it() -> None:
    nodes = [a_laid_node("n", "7x1g.10gb", "7x1g.10gb")]
    made = plan_for(nodes, a_job("a", profile="3g.40gb"), a_job("b", profile="3g.40gb", created=1.0))
    assert begun(made) == {"n": {0: "3g.40gb 3g.40gb"}}
    assert [verdict_of(made, name).reason for name in "ab"] == ["WaitingForRepartition"] * 2


def test_while_it_goes_on_nobody_is_sent_there_and_nothing_more_is_begun() -> None:
    node = a_laid_node("n", "7x1g.10gb", "7x1g.10gb")
    job, small = a_job(profile="3g.40gb"), a_job("small", profile="1g.10gb", created=1.0)
    node = under_way(node, plan_for([node], job))
    made = plan_for([node], job, small, now=NOW + 30)
    assert made.layouts == ()
    assert only(made, Admit) == []
    assert verdict_of(made).reason == "WaitingForRepartition"
    assert "about 60 s" in verdict_of(made).message


def test_once_it_is_done_the_job_is_admitted() -> None:
    node, job = a_laid_node("n", "7x1g.10gb"), a_job(profile="3g.40gb")
    ends = under_way(node, plan_for([node], job), progress=Progress.DONE)
    (end,) = plan_for([ends], job).layouts
    assert isinstance(end, EndLayout)
    assert (end.node, end.relayout, end.laid, end.trouble) == ("n", ends.relayout, ((0, NOW),), None)
    assert ends.relayout is not None
    assert nodes_of(plan_for([changed_node(ends, ends.relayout.boards)], job)) == ("n",)


def test_a_board_laid_out_lately_rests() -> None:
    node = replace(a_laid_node("n", "7x1g.10gb"), laid=((0, NOW - 599),))
    assert plan_for([node], a_job(profile="3g.40gb")).layouts == ()
    assert begun(plan_for([node], a_job(profile="3g.40gb"), now=NOW + 2)) != {}


def test_a_failed_attempt_is_repeated_and_then_given_up_for_ever_longer() -> None:
    node, job = a_laid_node("n", "7x1g.10gb"), a_job(profile="3g.40gb")
    failed = under_way(node, plan_for([node], job), progress=Progress.FAILED, message="no such entry")
    assert plan_for([failed], job, now=NOW + 14).layouts == ()
    (again,) = plan_for([failed], job, now=NOW + 15).layouts
    assert isinstance(again, LayOut)
    assert (again.relayout.attempt, again.relayout.tried, again.relayout.since) == (2, NOW + 15, NOW)
    last = replace(failed, relayout=replace(failed.relayout, attempt=4), trouble=Trouble(2, 0.0, ""))  # type: ignore[type-var]
    (end,) = plan_for([last], job, now=NOW + 200, observed={"n": NOW + 199}).layouts
    assert isinstance(end, EndLayout)
    assert end.trouble == Trouble(3, NOW + 200 + 240, "board 0 as 3g.40gb + 4 x 1g.10gb: no such entry")


def test_a_node_in_trouble_is_left_alone_until_its_pause_ends() -> None:
    node = replace(a_laid_node("n", "7x1g.10gb"), trouble=Trouble(1, NOW + 60, "broken"))
    made = plan_for([node], a_job(profile="3g.40gb"))
    assert made.layouts == ()


def test_an_attempt_without_an_end_is_begun_again() -> None:
    node, job = a_laid_node("n", "7x1g.10gb"), a_job(profile="3g.40gb")
    stuck = under_way(node, plan_for([node], job))
    (again,) = plan_for([stuck], job, now=NOW + 300, observed={"n": NOW + 299}).layouts
    assert isinstance(again, LayOut)
    assert again.relayout.attempt == 2


def test_boards_leave_mig_for_a_job_that_wants_them_whole() -> None:
    nodes = [a_laid_node("n", None, "7x1g.10gb", "3g.40gb! 3g.40gb", "!")]
    made = plan_for(nodes, a_job(gpus=2))
    assert begun(made) == {"n": {1: "whole"}}


def test_a_whole_board_enters_mig_for_a_job_that_wants_a_part() -> None:
    made = plan_for([a_laid_node("n", "!", None)], a_job(profile="3g.40gb"))
    assert begun(made) == {"n": {1: "3g.40gb 3g.40gb"}}


def test_a_gang_gets_all_the_boards_that_it_lacks_or_none() -> None:
    nodes = [a_laid_node(f"n{i}", "7x1g.10gb") for i in range(3)]
    made = plan_for(nodes, a_job(workers=6, profile="3g.40gb"))
    assert begun(made) == {f"n{i}": {0: "3g.40gb 3g.40gb"} for i in range(3)}
    assert plan_for(nodes, a_job(workers=7, profile="3g.40gb")).layouts == ()


def test_a_gang_that_must_share_a_rack_has_boards_laid_out_in_one() -> None:
    nodes = [
        a_laid_node("a1", "7x1g.10gb", labels={"rack": "a"}),
        a_laid_node("b1", "7x1g.10gb", labels={"rack": "b"}),
        a_laid_node("b2", "7x1g.10gb", labels={"rack": "b"}),
    ]
    made = plan_for(nodes, a_job(workers=4, profile="3g.40gb", required="rack"))
    assert list(begun(made)) == ["b1", "b2"]


def test_no_more_boards_change_than_the_gang_lacks() -> None:
    nodes = [a_laid_node("n", "3g.40gb 3g.40gb", "7x1g.10gb", "7x1g.10gb")]
    made = plan_for(nodes, a_job(workers=3, profile="3g.40gb"))
    assert {node: list(boards) for node, boards in begun(made).items()} == {"n": [1]}


def test_the_rest_of_a_board_becomes_what_others_wait_for() -> None:
    nodes = [a_laid_node("n", "7x1g.10gb")]
    waits = a_job("other", profile="2g.20gb", workers=9, created=1.0)
    made = plan_for(nodes, a_job(profile="3g.40gb"), waits)
    assert begun(made) == {"n": {0: "2g.20gb 2g.20gb 3g.40gb"}}


def test_the_cheapest_boards_are_taken_first() -> None:
    busy = a_laid_node("a", "7x1g.10gb", *[None] * 7)
    small = a_laid_node("b", "7x1g.10gb")
    assert list(begun(plan_for([busy, small], a_job(profile="3g.40gb")))) == ["b"]


def test_members_that_lack_cpu_have_no_board_laid_out() -> None:
    nodes = [a_laid_node("n", "7x1g.10gb", cpu=1)]
    assert plan_for(nodes, a_job(profile="3g.40gb", pod=shape(cpu=2))).layouts == ()


def test_a_cheap_layout_by_the_agent_beats_a_dearer_instance_that_is_free() -> None:
    nodes = [a_laid_node("n", "2g.20gb", "7g.80gb!", way=Way.AGENT)]
    made = plan_for(nodes, a_job(memory_gib=9))
    assert begun(made) == {"n": {0: "1g.10gb 2g.20gb"}}
    assert nodes_of(made) is None


def test_a_dear_layout_by_mig_manager_does_not() -> None:
    nodes = [a_laid_node("n", "2g.20gb", "", *["7g.80gb!"] * 6)]
    assert nodes_of(plan_for(nodes, a_job(memory_gib=9))) == ("n",)


def test_who_waits_for_the_cheaper_device_goes_on_waiting_while_it_comes() -> None:
    nodes, job = [a_laid_node("n", "2g.20gb", way=Way.AGENT), a_laid_node("m", "2g.20gb")], a_job(memory_gib=9)
    first = plan_for(nodes, job)
    later = plan_for([under_way(nodes[0], first), nodes[1]], job, now=NOW + 5)
    assert (later.layouts, nodes_of(later)) == ((), None)
    assert verdict_of(later).reason == "WaitingForRepartition"


def test_replicas_without_a_place_have_boards_laid_out_too() -> None:
    nodes = [a_laid_node("n", "7x1g.10gb", "7x1g.10gb")]
    made = plan_for(nodes, a_service(profile="3g.40gb", replicas=3))
    assert begun(made) == {"n": {0: "3g.40gb 3g.40gb", 1: "3g.40gb 3g.40gb"}}
    assert verdict_of(made, "service").reason == "WaitingForRepartition"


def test_what_one_is_promised_no_other_destroys() -> None:
    nodes = [a_laid_node("n", "7x1g.10gb", "7x1g.10gb")]
    first, second = a_job("first", profile="2g.20gb"), a_job("second", profile="7g.80gb", workers=2, created=1.0)
    made = plan_for(nodes, first, second)
    assert list(begun(made)["n"]) == [0]
    assert verdict_of(made, "second").reason == "NoFeasibleMigLayout"


def test_a_queue_gets_no_more_boards_than_its_quota() -> None:
    nodes = [a_laid_node(f"n{i}", "7x1g.10gb") for i in range(3)]
    jobs = [a_job(f"j{i}", profile="7g.80gb", queue="small", created=float(i)) for i in range(3)]
    made = plan_for(nodes, *jobs, queues={"small": Queue("small", {"A100": 1})})
    assert len(begun(made)) == 1


def test_nothing_is_laid_out_for_one_worker_on_a_node_that_its_required_level_leaves_out() -> None:
    job = a_job(profile="3g.40gb", required="rack")
    made = plan_for([a_laid_node("unnamed", "7x1g.10gb")], job)
    assert (made.layouts, made.faults) == ((), {})
    named = a_laid_node("named", "7x1g.10gb", labels={"rack": "a"})
    assert list(begun(plan_for([a_laid_node("an-unnamed", "7x1g.10gb"), named], job))) == ["named"]


def test_a_record_that_counts_attempts_without_end_is_given_up_like_any_other() -> None:
    nodes = [a_laid_node("n", "7x1g.10gb")]
    made = plan_for(nodes, a_job(profile="3g.40gb"))
    odd = under_way(nodes[0], made, progress=Progress.FAILED, attempt=10**9, tried=NOW)
    (end,) = plan_for([odd], now=NOW + 300).layouts
    assert isinstance(end, EndLayout)
    assert end.trouble is not None


def test_a_job_that_asks_for_more_than_a_number_holds_breaks_nothing() -> None:
    made = plan_for([a_laid_node("n", "7x1g.10gb")], a_job(profile="3g.40gb", pod=shape(memory_gib=2**40)))
    assert made.faults == {}
    assert made.layouts == ()
