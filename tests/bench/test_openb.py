"""`berth bench openb`: what it prints, how it refuses, and a look at the public traces where they are present."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from berth.bench.names import PolicyName
from berth.bench.openb import run, tasks
from berth.bench.trace import Trace, load
from berth.cli.main import app
from tests.bench.openb import DATA

FIGURES = ["alloc@90", "alloc@100", "alloc@130", "frag_ratio@80", "pods_placed", "decisions_per_second"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a trace of two nodes of four boards, and of pods that ask for 1.5 times as much in all."""
    (tmp_path / "nodes.csv").write_text("sn,cpu_milli,memory_mib,gpu,model\na,64000,262144,4,G2\nb,64000,262144,4,T4\n")
    (tmp_path / "pods.csv").write_text(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
        + "".join(f"p{n:02},4000,1024,1,1000,\n" for n in range(12))
    )
    orders = [{"seed": seed, "node_perm": [0, 1], "arrivals": list(range(12))} for seed in (42, 43)]
    (tmp_path / "orders.jsonl").write_text("".join(json.dumps(order) + "\n" for order in orders))
    return tmp_path


def bench(files: Path, *options: str) -> Result:
    where = [f"--nodes={files}/nodes.csv", f"--pods={files}/pods.csv", f"--orders={files}/orders.jsonl"]
    return CliRunner().invoke(app, ["bench", "openb", *where, *options])


@pytest.mark.parametrize("policy", list(PolicyName))
def test_json_has_the_policy_the_mean_and_each_seed(files: Path, policy: PolicyName) -> None:
    result = bench(files, "--output=json", "--seeds", "43", "--policy", policy.value)
    found = json.loads(result.stdout)
    assert list(found) == ["policy", "mean", "seeds"]
    assert found["policy"] == policy.value
    assert list(found["mean"]) == FIGURES
    assert [list(seed) for seed in found["seeds"]] == [["seed", *FIGURES]]
    assert found["seeds"][0]["seed"] == 43
    assert (found["mean"]["alloc@100"], found["mean"]["pods_placed"]) == (100, 8)


def test_all_seeds_run_where_none_is_named(files: Path) -> None:
    found = json.loads(bench(files, "--output=json").stdout)
    assert [seed["seed"] for seed in found["seeds"]] == [42, 43]


def test_a_seed_that_is_named_twice_runs_once(files: Path) -> None:
    found = json.loads(bench(files, "--output=json", "--seeds=43,43").stdout)
    assert [seed["seed"] for seed in found["seeds"]] == [43]


def test_prints_a_table_for_people(files: Path) -> None:
    result = bench(files, "--seeds=42", "--permute-nodes=3")
    assert "berth" in result.stdout
    assert "100.00" in result.stdout
    assert "mean" in result.stdout


def test_a_figure_that_the_pods_end_before_is_left_open(files: Path) -> None:
    order = {"seed": 42, "node_perm": [0, 1], "arrivals": [0, 1, 2, 3]}
    (files / "orders.jsonl").write_text(json.dumps(order))
    found = json.loads(bench(files, "--output=json").stdout)
    assert [found["mean"][figure] for figure in FIGURES[:4]] == [None] * 4
    assert "-" in bench(files).stdout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--seeds=42,44"], "the orders have seeds 42, 43, not 44"),
        (["--seeds=all"], "'all' is no list such as 42,43"),
        (["--policy=best"], "'best' is not one of"),
        (["--nodes=/nowhere.csv"], "/nowhere.csv: No such file or directory"),
    ],
)
def test_says_what_can_not_be_used(files: Path, options: list[str], complaint: str) -> None:
    result = bench(files, *options)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.replace("│", "").split())


@cache
def public(trace: str) -> Trace:
    """A public trace, where the folder of data that BERTH_DATA names is present."""
    if not DATA.is_dir():
        pytest.skip(f"NOT CHECKED: there are no public traces in {DATA}")
    return load(
        DATA / "openb_node_list_gpu_node.csv",
        DATA / f"openb_pod_list_{trace}.csv",
        DATA / "orders" / f"{trace}.jsonl.gz",
    )


@cache
def replayed(trace: str, policy: str, permuted: int | None = None) -> dict[str, float | None]:
    return run(tasks(public(trace), PolicyName(policy), [42], permuted)[0]).figures


PUBLISHED_AS = {"random": "01-Random", "packing": "04-GpuPacking", "bestfit": "05-BestFit", "fgd": "06-FGD"}


def published(trace: str, policy: str) -> Iterator[tuple[str, float]]:
    with (DATA / "published.csv").open() as file:
        for row in csv.DictReader(file):
            if (row["trace"], row["policy"], row["metric"]) == (trace, PUBLISHED_AS[policy], "alloc_pct"):
                yield f"alloc@{row['arrived_pct']}", float(row["mean"])


@pytest.mark.parametrize("policy", list(PUBLISHED_AS))
def test_one_seed_of_a_comparator_is_near_its_published_mean(policy: str) -> None:
    found = replayed("default", policy)
    for figure, mean in published("default", policy):
        if figure in found:
            assert found[figure] == pytest.approx(mean, abs=0.8), figure


@pytest.mark.parametrize(("trace", "allocated", "fragmented"), [("default", 96.0, 29.7), ("gpuspec33", 91.5, 46.3)])
def test_ours_fits_more_of_the_public_traces_than_the_best_published(
    trace: str, allocated: float, fragmented: float
) -> None:
    found = replayed(trace, "berth")
    assert found["alloc@100"] is not None
    assert found["alloc@100"] > allocated
    assert found["alloc@130"] is not None
    assert found["alloc@130"] > 96.0
    assert found["frag_ratio@80"] is not None
    assert found["frag_ratio@80"] < fragmented
    assert found["pods_placed"] is not None
    assert found["pods_placed"] > 8380  # FGD: 8,357 and 8,352 on average


def test_the_order_of_the_nodes_makes_no_difference_on_the_public_traces() -> None:
    first, second = replayed("default", "berth"), replayed("default", "berth", permuted=5)
    assert {**first, "decisions_per_second": None} == {**second, "decisions_per_second": None}
