"""The openb files: what is read, and what a person is told of a file that can't be."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from berth.bench.tables import TraceError
from berth.bench.trace import Node, Order, Trace, load
from berth.planning.scarcity import Demand

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn1,96000,393216,8,G2\nn0,64000,262144,2,P100\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\np1,8000,100,1,470,P100|T4,LS\np0,4000,200,0,0,,BE\n"
ORDERS = [{"seed": 7, "node_perm": [1, 0], "arrivals": [0, 1, 1]}]


def read(folder: Path, nodes: str = NODES, pods: str = PODS, orders: str | None = None) -> Trace:
    (folder / "nodes.csv").write_text(nodes)
    (folder / "pods.csv").write_text(pods)
    lines = "\n".join(map(json.dumps, ORDERS)) if orders is None else orders
    (folder / "orders.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return load(folder / "nodes.csv", folder / "pods.csv", folder / "orders.jsonl.gz")


def test_reads_nodes_and_pods_sorted_by_name_and_the_orders_of_each_seed(tmp_path: Path) -> None:
    trace = read(tmp_path)
    assert trace.nodes == (Node("n0", 64000, 262144, 2, "P100"), Node("n1", 96000, 393216, 8, "G2"))
    assert trace.pods == (Demand(4000, 200, 0, 0), Demand(8000, 100, 1, 470, frozenset({"P100", "T4"})))
    assert trace.orders == (Order(7, (1, 0), (0, 1, 1)),)


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"nodes": "sn,cpu_milli,memory_mib,model\n"}, r"nodes.csv: lacks column 'gpu'; wanted: sn, cpu_milli"),
        ({"nodes": ""}, r"nodes.csv: lacks column 'sn'"),
        ({"nodes": NODES.replace("96000", "many")}, r"nodes.csv: line 2, column 'cpu_milli': 'many' is no whole"),
        ({"nodes": NODES.replace("96000", "-1")}, r"nodes.csv: line 2, column 'cpu_milli': '-1' is no whole"),
        ({"nodes": NODES + "n2,1\n"}, r"nodes.csv: line 4 ends before column 'memory_mib'"),
        ({"nodes": "sn,cpu_milli,memory_mib,gpu,model\n"}, r"nodes.csv: lists no node with boards"),
        ({"pods": PODS.replace("470", "1001")}, r"pods.csv: line 2, column 'gpu_milli': 1001 of each of 1 boards"),
        ({"pods": PODS.replace(",0,0,", ",0,5,")}, r"pods.csv: line 3, column 'gpu_milli': 5 of each of 0 boards"),
        ({"orders": "{"}, r"orders.jsonl.gz: line 1 is no JSON object"),
        ({"orders": '{"seed": 1, "arrivals": []}'}, r"orders.jsonl.gz: line 1 lacks key 'node_perm'"),
        ({"orders": '{"seed": 1, "node_perm": [0, 0], "arrivals": []}'}, r"seed 1, key 'node_perm': no permutation"),
        ({"orders": '{"seed": 1, "node_perm": [0, 1], "arrivals": [2]}'}, r"seed 1, key 'arrivals': beyond the 2 pods"),
        ({"orders": '{"seed": 1, "node_perm": [0, 1], "arrivals": []}'}, r"seed 1, key 'arrivals': no pod arrives"),
        ({"orders": '{"seed": [1], "node_perm": [0, 1], "arrivals": [0]}'}, r"line 1, key 'seed': no whole number"),
        ({"orders": ""}, r"orders.jsonl.gz: lists no order"),
        ({"orders": '{"seed": 1, "node_perm": 3, "arrivals": [2]}'}, r"line 1, key 'node_perm': no list of whole"),
        (
            {"orders": '{"seed": 1, "node_perm": [0, 1], "arrivals": ["x"]}'},
            r"line 1, key 'arrivals': no list of whole",
        ),
    ],
)
def test_names_the_file_the_line_and_the_column_that_can_not_be_read(
    tmp_path: Path, files: dict[str, str], complaint: str
) -> None:
    with pytest.raises(TraceError, match=complaint):
        read(tmp_path, **files)


def test_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere.csv: No such file"):
        load(tmp_path / "nowhere.csv", tmp_path / "nowhere.csv", tmp_path / "nowhere.csv")


def test_names_a_file_that_is_no_gzip_though_its_name_says_so(tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / "orders.jsonl.gz").write_text("{}")
    with pytest.raises(TraceError, match=r"orders.jsonl.gz: Not a gzipped file"):
        load(tmp_path / "nodes.csv", tmp_path / "pods.csv", tmp_path / "orders.jsonl.gz")
