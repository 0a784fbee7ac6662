"""A tree of queues: who owns, lends and borrows what; stated by numbers, and as laws on random trees."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from berth.model.workloads import Queue
from berth.planning.cohorts import Cohorts
from berth.planning.quota import Quota
from tests.planning.builders import model

H100, A100 = model("H100-80GB"), model("A100-80GB")
NAME = "H100"
Charge = tuple[str, Fraction]


def a_quota(*queues: Queue, **used: int) -> Quota:
    """The quota of these queues, with so many boards of H100 used in each."""
    quota = Quota({q.name: q for q in queues})
    for queue, boards in used.items():
        quota.charge(queue, H100, Fraction(boards))
    return quota


def owning(name: str, boards: int, *, lends: int | None = None, borrows: int | None = None, under: str = "") -> Queue:
    """A queue with a nominal quota for H100, and limits."""
    lending = {} if lends is None else {NAME: lends}
    borrowing = {} if borrows is None else {NAME: borrows}
    return Queue(name, {NAME: boards}, borrowing, lending, under)


def test_a_queue_borrows_what_its_sibling_does_not_use() -> None:
    quota = a_quota(Queue("org"), owning("a", 8, under="org"), owning("b", 8, under="org"), b=3)
    assert (quota.left("a", H100), quota.ever("a", H100), quota.nominal_left("a", H100)) == (13, 16, 8)


def test_a_lending_limit_keeps_the_rest_for_its_owner() -> None:
    quota = a_quota(Queue("org"), owning("a", 8, under="org"), owning("b", 8, lends=2, under="org"))
    assert (quota.left("a", H100), quota.left("b", H100)) == (10, 16)


def test_a_borrowing_limit_bounds_what_is_held_beyond_what_is_owned() -> None:
    quota = a_quota(Queue("org"), owning("a", 8, borrows=1, under="org"), owning("b", 8, under="org"), a=2)
    assert (quota.left("a", H100), quota.ever("a", H100)) == (7, 9)


def test_a_cohort_s_own_quota_is_for_all_under_it() -> None:
    quota = a_quota(owning("org", 4), owning("a", 8, under="org"), owning("b", 0, under="org"))
    assert (quota.left("b", H100), quota.left("a", H100)) == (12, 12)


def test_a_borrowing_limit_of_a_cohort_bounds_all_under_it_together() -> None:
    quota = a_quota(
        Queue("org"), owning("dept", 0, borrows=3, under="org"), owning("x", 9, under="org"), Queue("a", parent="dept"),
        Queue("b", parent="dept"), a=2,
    )  # fmt: skip
    assert (quota.left("a", H100), quota.left("b", H100)) == (1, 1)


def test_a_queue_without_quotas_owns_nothing_and_may_borrow_all() -> None:
    quota = a_quota(Queue("org"), owning("a", 8, under="org"), Queue("b", parent="org"))
    assert (quota.left("b", H100), quota.nominal_left("b", H100)) == (8, 0)
    assert quota.left("b", A100) == 0


def test_a_tree_in_which_nobody_states_quotas_is_unlimited() -> None:
    quota = a_quota(Queue("org"), Queue("a", parent="org"), a=99)
    assert (quota.left("a", H100), quota.ever("a", H100), quota.nominal_left("a", H100)) == (None, None, None)


def test_a_queue_that_states_quotas_has_no_right_to_models_it_leaves_out() -> None:
    quota = a_quota(Queue("org"), owning("a", 8, under="org"), Queue("b", {"A100": 8}, parent="org"))
    assert (quota.name_for("b", H100), quota.left("b", H100)) == (None, 0)


def test_boards_with_no_quota_that_run_are_counted_and_take_nothing_from_others() -> None:
    quota = Quota({"a": owning("a", 8)})
    quota.charge("a", A100, Fraction(2))
    assert (quota.used("a"), quota.left("a", H100)) == ({"A100-80GB": "2"}, 8)


def test_dollars_bound_a_whole_subtree_at_list_prices() -> None:
    org = Queue("org", max_usd_per_hour=Fraction(100))
    quota = a_quota(org, Queue("a", parent="org"), Queue("b", parent="org"), a=10)  # 8 dollars each
    assert (quota.left("b", H100), quota.left("a", H100), quota.ever("b", H100)) == (
        Fraction(5, 2),
        Fraction(5, 2),
        Fraction(25, 2),
    )
    assert quota.left("b", A100) == Fraction(20) / Fraction("4.1")


def test_who_lends_and_who_borrows() -> None:
    quota = a_quota(
        Queue("org"), owning("a", 8, under="org"), owning("b", 2, under="org"), owning("c", 8, under="org"), b=9, c=8
    )
    assert (quota.borrowed("b", H100), quota.borrowed("c", H100)) == (7, 0)
    assert quota.borrowers("a", H100) == ("b",)
    assert quota.room_after("a", H100, [("b", H100, Fraction(4))]) == 5


def test_what_is_borrowed_inside_another_cohort_is_not_to_be_had_back_from_it() -> None:
    quota = a_quota(
        Queue("org"), Queue("left", parent="org"), Queue("right", parent="org"), owning("a", 8, under="left"),
        owning("b", 8, under="right"), owning("c", 0, under="right"), c=5,
    )  # fmt: skip
    assert quota.borrowers("a", H100) == ()
    assert quota.borrowers("b", H100) == ("c",)


def test_a_name_is_the_same_however_it_is_written() -> None:
    quota = Quota(
        {q.name: q for q in (Queue("org"), Queue("a", {"h100": 8}, parent="org"), owning("b", 8, under="org"))}
    )
    quota.charge("b", H100, Fraction(12))
    assert (quota.left("a", H100), quota.used("org")) == (4, {"h100": "12"})
    assert quota.cohorts.problems == {}


def test_names_that_overlap_in_a_tree_are_told_with_the_remedy() -> None:
    tree = [Queue("org"), Queue("a", {"A100": 8}, parent="org"), Queue("b", {"A100-80GB": 8}, parent="org"), Queue("x")]
    problems = Cohorts({q.name: q for q in tree}).problems
    assert set(problems) == {"org", "a", "b"}
    assert problems["b"] == (
        "spec.quotas: A100 of queue a covers A100-80GB, which another queue of its tree names: "
        "name A100-80GB in both, or A100 in all"
    )


def test_circles_and_missing_parents_concern_the_queues_under_them_alone() -> None:
    queues = [Queue("a", parent="b"), Queue("b", parent="a"), Queue("c", parent="b"), Queue("d", parent="gone")]
    cohorts = Cohorts({q.name: q for q in [*queues, Queue("e", parent="d"), Queue("fine")]})
    assert cohorts.problems["a"] == "spec.parent: a -> b -> a is a circle: give one of them another or none"
    assert cohorts.problems["c"] == "spec.parent: b, above it, can't be used: see its conditions"
    assert cohorts.problems["d"] == 'spec.parent: there is no Queue "gone": create it, or name another or none'
    assert cohorts.problems["e"] == "spec.parent: d, above it, can't be used: see its conditions"
    assert "fine" not in cohorts.problems


def test_a_thousand_queues_one_under_another_are_no_trouble() -> None:
    queues = [Queue(f"q{i}", {NAME: 1}, parent=f"q{i - 1}" if i else "") for i in range(1000)]
    quota = a_quota(*queues, q999=400)
    assert quota.left("q999", H100) == 600


def a_tree(rows: list[tuple[int, int, int, int]]) -> dict[str, Queue]:
    """Queues from numbers: of the parent, nominal quota, borrowing limit and lending limit; those too large: none."""
    queues = {}
    for i, (parent, nominal, borrows, lends) in enumerate(rows):
        states = {NAME: nominal} if nominal < 7 else None
        limits = ({} if n >= 7 or states is None else {NAME: n} for n in (borrows, lends))
        queues[f"q{i}"] = Queue(f"q{i}", states, *limits, f"q{parent}" if parent < i else "")
    return queues


NUMBER = st.integers(0, 9)
TREES = st.lists(st.tuples(st.integers(0, 7), NUMBER, NUMBER, NUMBER), min_size=1, max_size=7).map(a_tree)
CHARGES = st.lists(st.integers(0, 7 * 40 - 1).map(lambda n: (n // 40, Fraction(n % 40, 8))), max_size=10)


def admitted(queues: dict[str, Queue], charges: list[tuple[int, Fraction]]) -> tuple[Quota, dict[str, Fraction]]:
    """The quota after each charge that had room, and what each queue's own work holds."""
    quota, held = Quota(queues), dict.fromkeys(queues, Fraction(0))
    for number, boards in charges:
        queue = f"q{number % len(queues)}"
        left = quota.left(queue, H100)
        if left is None or boards <= left:
            quota.charge(queue, H100, boards)
            held[queue] += boards
    return quota, held


def children(queues: dict[str, Queue], name: str) -> list[str]:
    return [q.name for q in queues.values() if q.parent == name]


def owned(queues: dict[str, Queue], name: str) -> int:
    """What a queue owns and what those under it lend, from the definition."""
    return (queues[name].nominal or {}).get(NAME, 0) + sum(
        min(owned(queues, child), queues[child].lending.get(NAME, 10**6)) for child in children(queues, name)
    )


def counted(queues: dict[str, Queue], held: dict[str, Fraction], name: str) -> Fraction:
    """What is held at a queue: its own, and that of those under it beyond what they keep for themselves."""
    total = held[name]
    for child in children(queues, name):
        kept = owned(queues, child) - min(owned(queues, child), queues[child].lending.get(NAME, 10**6))
        total += max(Fraction(0), counted(queues, held, child) - kept)
    return total


def fits(queues: dict[str, Queue], held: dict[str, Fraction]) -> bool:
    """Whether no queue holds more than it owns and may borrow."""
    for name, queue in queues.items():
        limit = 0 if not queue.parent else queue.borrowing.get(NAME, 10**6)
        if counted(queues, held, name) > owned(queues, name) + limit:
            return False
    return True


@given(TREES, CHARGES)
def test_no_queue_ever_holds_more_than_it_owns_and_may_borrow(
    queues: dict[str, Queue], charges: list[tuple[int, Fraction]]
) -> None:
    quota, held = admitted(queues, charges)
    for root, members in quota.cohorts.trees.items():
        if not quota.cohorts.is_unlimited(root):
            assert fits({name: queues[name] for name in members}, held)


@given(TREES, CHARGES)
def test_what_is_left_is_as_much_as_fits_and_no_more(
    queues: dict[str, Queue], charges: list[tuple[int, Fraction]]
) -> None:
    quota, held = admitted(queues, charges)
    for root, members in quota.cohorts.trees.items():
        tree = {name: queues[name] for name in members}
        for name in [] if quota.cohorts.is_unlimited(root) else members:
            left = quota.left(name, H100)
            assert left is not None
            assert fits(tree, {**held, name: held[name] + left})
            assert not fits(tree, {**held, name: held[name] + left + Fraction(1, 1000)})


@given(TREES, CHARGES)
def test_what_a_queue_owns_is_its_to_take_unless_others_borrow_it(
    queues: dict[str, Queue], charges: list[tuple[int, Fraction]]
) -> None:
    quota, _ = admitted(queues, charges)
    for name in queues:
        own, left = quota.nominal_left(name, H100), quota.left(name, H100)
        if own is not None and left is not None and left < own:
            assert quota.borrowers(name, H100)


@given(TREES, CHARGES)
def test_once_all_borrowers_gave_back_a_queue_has_what_it_owns(
    queues: dict[str, Queue], charges: list[tuple[int, Fraction]]
) -> None:
    quota, held = admitted(queues, charges)
    for name in queues:
        own = quota.nominal_left(name, H100)
        freed = [(other, H100, held[other]) for other in quota.borrowers(name, H100)]
        room = quota.room_after(name, H100, freed)
        assert own is None or room is None or room >= own


@given(TREES, CHARGES)
def test_what_is_given_back_leaves_no_trace(queues: dict[str, Queue], charges: list[tuple[int, Fraction]]) -> None:
    quota, held = admitted(queues, charges)
    for name, boards in held.items():
        quota.charge(name, H100, -boards)
    fresh = Quota(queues)
    for name in queues:
        assert quota.left(name, H100) == fresh.left(name, H100) == fresh.ever(name, H100)
        assert quota.used(name) == {}


@given(TREES, CHARGES)
def test_a_copy_is_charged_by_itself(queues: dict[str, Queue], charges: list[tuple[int, Fraction]]) -> None:
    quota, _ = admitted(queues, charges)
    before = {name: quota.left(name, H100) for name in queues}
    twin = quota.copy()
    for name in queues:
        twin.charge(name, H100, Fraction(1))
    assert {name: quota.left(name, H100) for name in queues} == before


@given(TREES, CHARGES)
def test_everything_is_counted_exactly(queues: dict[str, Queue], charges: list[tuple[int, Fraction]]) -> None:
    quota, _ = admitted(queues, charges)
    for name in queues:
        for amount in (quota.left(name, H100), quota.ever(name, H100), quota.borrowed(name, H100)):
            assert amount is None or isinstance(amount, Fraction)
