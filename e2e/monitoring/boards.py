"""What the dashboards show: the queries of each panel, by legend."""

from __future__ import annotations

from e2e.monitoring.panels import Board, Panel, quantiles

QUEUE = {"queue": "label_values(berth_admitted_workloads, queue)"}
HOURS = "/ 3600"
PER_HOUR = "* 3600"

FLEET = Board(
    "fleet",
    "Fleet",
    "Boards, what they do, and the operator that places work on them.",
    {
        "Boards": (
            Panel(
                "Boards by state",
                "As kubelets offer them; an instance is its share of a board. Unavailable: free on closed nodes.",
                "short",
                {"{{model}} {{state}}": "sum by (model, state) (berth_gpus)"},
                stacked=True,
            ),
            Panel(
                "Fragmentation",
                "Share of the free boards that lie on nodes where others are used.",
                "percentunit",
                {"{{model}}": "max by (model) (berth_fragmentation_ratio)"},
            ),
            Panel(
                "MIG instances",
                "By profile and state.",
                "short",
                {"{{profile}} {{state}}": "sum by (profile, state) (berth_mig_instances)"},
                stacked=True,
            ),
            Panel(
                "Boards laid out anew, per hour",
                "Re-layouts that ended.",
                "short",
                {"{{result}}": f"sum by (result) (rate(berth_repartitions_total[$__rate_interval])) {PER_HOUR}"},
            ),
        ),
        "What boards do": (
            Panel(
                "Utilization",
                "Mean of whole boards, as node agents measure it; of a board in MIG mode its instances' sum.",
                "percentunit",
                {"{{model}}": 'avg by (model) (berth_gpu_utilization_ratio{instance=""})'},
            ),
            Panel(
                "Power", "Of all boards.", "watt", {"{{model}}": "sum by (model) (berth_gpu_power_watts)"}, stacked=True
            ),
            Panel(
                "Hottest board",
                "Of each model.",
                "celsius",
                {"{{model}}": "max by (model) (berth_gpu_temperature_celsius)"},
            ),
            Panel(
                "Broken boards and errors",
                "Boards that are not healthy; uncorrected memory errors and Xid errors per hour.",
                "short",
                {
                    "not healthy": "count(berth_gpu_healthy == 0) or vector(0)",
                    "uncorrected ECC": 'sum(rate(berth_gpu_ecc_errors_total{kind="uncorrected"}[$__rate_interval])) '
                    + PER_HOUR,
                    "Xid {{xid}}": f"sum by (xid) (rate(berth_gpu_xid_errors_total[$__rate_interval])) {PER_HOUR}",
                },
            ),
        ),
        "Work that stops": (
            Panel(
                "Attempts stopped, per hour",
                "By reason.",
                "short",
                {"{{reason}}": f"sum by (reason) (rate(berth_evictions_total[$__rate_interval])) {PER_HOUR}"},
                stacked=True,
            ),
            Panel(
                "Lost board-hours, per hour",
                "Work since the last durable checkpoint of attempts that ended before their time.",
                "short",
                {"{{reason}}": "sum by (reason) (rate(berth_lost_gpu_seconds_total[$__rate_interval]))"},
                stacked=True,
            ),
        ),
        "The operator": (
            Panel("Planning cycle", "How long one takes.", "s", quantiles("berth_cycle_duration_seconds")),
            Panel(
                "Silence of watches",
                "Bookmarks come about every minute.",
                "s",
                {"{{resource}}": "max by (resource) (berth_watch_last_event_age_seconds)"},
            ),
            Panel(
                "Requests to the API server",
                "By the status of the answer; none: there was none.",
                "reqps",
                {"{{method}} {{code}}": "sum by (method, code) (rate(berth_api_requests_total[$__rate_interval]))"},
            ),
            Panel(
                "Operators that act, agents that answer, nodes that are avoided",
                "One operator acts. An agent counts whose boards and kubelet answer.",
                "short",
                {
                    "operators": "sum(berth_leader)",
                    "agents": "count(min by (node) (berth_agent_source_up) == 1) or vector(0)",
                    "suspect nodes": "max(berth_suspect_nodes)",
                },
            ),
        ),
    },
)

QUEUES = Board(
    "queue",
    "Queue",
    "What queues have, who waits in them, and for how long.",
    {
        "Quota": (
            Panel(
                "Boards",
                "Used, borrowed, lent, and the nominal quota.",
                "short",
                {"{{queue}} {{model}} {{state}}": 'max by (queue, model, state) (berth_queue_gpus{queue=~"$queue"})'},
            ),
            Panel(
                "Workloads that have their place",
                "TrainingJobs and InferenceServices.",
                "short",
                {"{{queue}}": 'max by (queue) (berth_admitted_workloads{queue=~"$queue"})'},
            ),
        ),
        "Waiting": (
            Panel(
                "TrainingJobs that wait",
                "By the reason of their verdict.",
                "short",
                {"{{queue}} {{reason}}": 'max by (queue, reason) (berth_pending_workloads{queue=~"$queue"})'},
                stacked=True,
            ),
            Panel(
                "Longest wait",
                "Of jobs that would run if there were room.",
                "s",
                {"{{queue}}": 'max by (queue) (berth_longest_wait_seconds{queue=~"$queue"})'},
            ),
            Panel(
                "Wait until admission",
                "Of jobs that were admitted for the first time.",
                "s",
                quantiles("berth_admission_wait_seconds", '{queue=~"$queue"}', "queue"),
            ),
            Panel(
                "Admitted within an hour",
                "Share of those that were admitted; the objective is 95 %.",
                "percentunit",
                {
                    "{{queue}}": "sum by (queue) (rate(berth_admission_wait_seconds_bucket"
                    '{le=~"3600([.]0)?", queue=~"$queue"}[6h])) '
                    '/ sum by (queue) (rate(berth_admission_wait_seconds_count{queue=~"$queue"}[6h]))'
                },
            ),
        ),
        "Running": (
            Panel(
                "Utilization of what queues hold",
                "Mean of boards and instances.",
                "percentunit",
                {"{{queue}}": 'avg by (queue) (berth_gpu_utilization_ratio{queue!="", queue=~"$queue"})'},
            ),
            Panel(
                "Oldest work that is not saved",
                "Of running jobs with spec.checkpoint.",
                "s",
                {"{{queue}}": 'max by (queue) (berth_checkpoint_age_seconds{queue=~"$queue"})'},
            ),
            Panel(
                "Idle jobs and pods that can't be bound",
                "Jobs whose boards have done nothing for too long; pods that kube-scheduler says it can't bind.",
                "short",
                {
                    "{{queue}} idle": 'max by (queue) (berth_idle_workloads{queue=~"$queue"})',
                    "{{queue}} unschedulable": 'max by (queue) (berth_unschedulable_pods{queue=~"$queue"})',
                },
            ),
            Panel(
                "Saves and restores",
                "How long they took, of all queues.",
                "s",
                {
                    **{f"save {q}": e for q, e in quantiles("berth_checkpoint_save_seconds").items()},
                    **{f"restore {q}": e for q, e in quantiles("berth_restore_seconds").items()},
                },
            ),
        ),
    },
    QUEUE,
)

OF = 'namespace=~"$namespace", workload=~"$workload", workload!="", queue=~"$queue"'

WORKLOAD = Board(
    "workload",
    "Workload",
    "What the boards of single workloads do, as node agents measure it.",
    {
        "Boards": (
            Panel(
                "Utilization",
                "Share of the time in which anything ran.",
                "percentunit",
                {"{{workload}} {{pod}} {{gpu}} {{profile}}": f"berth_gpu_utilization_ratio{{{OF}}}"},
            ),
            Panel(
                "SM activity",
                "Share of the SMs that were busy, where it can be measured.",
                "percentunit",
                {"{{workload}} {{pod}} {{gpu}} {{profile}}": f"berth_gpu_sm_active_ratio{{{OF}}}"},
            ),
            Panel(
                "Memory in use",
                "Of each board or instance.",
                "percentunit",
                {
                    "{{workload}} {{pod}} {{gpu}} {{profile}}": f"berth_gpu_memory_used_bytes{{{OF}}} "
                    f"/ berth_gpu_memory_total_bytes{{{OF}}}"
                },
            ),
            Panel(
                "Slowest member, of the mean",
                "The utilization of a workload's least busy board over its mean: 1 where all do the same.",
                "percentunit",
                {
                    "{{namespace}}/{{workload}}": f"min by (namespace, workload) (berth_gpu_utilization_ratio{{{OF}}}) "
                    f"/ avg by (namespace, workload) (berth_gpu_utilization_ratio{{{OF}}})"
                },
            ),
        ),
        "Energy": (
            Panel(
                "Power",
                "Of a workload's boards.",
                "watt",
                {"{{namespace}}/{{workload}}": f"sum by (namespace, workload) (berth_gpu_power_watts{{{OF}}})"},
                stacked=True,
            ),
            Panel(
                "Energy in the time shown",
                "Of a workload's boards, without hosts.",
                "kwatth",
                {
                    "{{namespace}}/{{workload}}": "sum by (namespace, workload) "
                    f"(increase(berth_gpu_energy_joules_total{{{OF}}}[$__range])) / 3.6e6"
                },
                bars=True,
            ),
        ),
    },
    {
        **QUEUE,
        "namespace": 'label_values(berth_gpu_power_watts{queue=~"$queue"}, namespace)',
        "workload": 'label_values(berth_gpu_power_watts{namespace=~"$namespace", workload!=""}, workload)',
    },
)


def _spent(metric: str, by: str, factor: str = "") -> str:
    return f'sum by ({by}) (increase({metric}{{queue=~"$queue"}}[$__range])) {factor}'.rstrip()


COST = Board(
    "cost-and-carbon",
    "Cost and carbon",
    "What work used and cost. Statuses, and so these, are brought up to date every five to ten minutes.",
    {
        "In the time shown": (
            Panel(
                "Dollars",
                "By the price book.",
                "currencyUSD",
                {"{{queue}}": _spent("berth_cost_dollars_total", "queue")},
                bars=True,
            ),
            Panel(
                "Board-hours",
                "By capacity type.",
                "short",
                {"{{queue}} {{capacity_type}}": _spent("berth_used_gpu_seconds_total", "queue, capacity_type", HOURS)},
                bars=True,
            ),
            Panel(
                "Energy",
                "With the share of hosts and building.",
                "kwatth",
                {"{{queue}}": _spent("berth_energy_joules_total", "queue", "/ 3.6e6")},
                bars=True,
            ),
            Panel(
                "CO2e",
                "Kilograms, as far as the carbon intensity of the hours is known.",
                "masskg",
                {"{{queue}}": _spent("berth_carbon_grams_total", "queue", "/ 1000")},
                bars=True,
            ),
        ),
        "What it is made of": (
            Panel(
                "Dollars per board-hour",
                "By model and capacity type.",
                "currencyUSD",
                {
                    "{{model}} {{capacity_type}}": _spent("berth_cost_dollars_total", "model, capacity_type")
                    + " / ("
                    + _spent("berth_used_gpu_seconds_total", "model, capacity_type", HOURS)
                    + ")"
                },
                bars=True,
            ),
            Panel(
                "Carbon intensity of the energy used",
                "Grams of CO2e for each kWh.",
                "short",
                {
                    "{{queue}}": _spent("berth_carbon_grams_total", "queue")
                    + " / ("
                    + _spent("berth_energy_joules_total", "queue", "/ 3.6e6")
                    + ")"
                },
                bars=True,
            ),
            Panel(
                "Share of spot capacity",
                "Of all board-hours.",
                "percentunit",
                {
                    "spot": 'sum(increase(berth_used_gpu_seconds_total{capacity_type="spot", queue=~"$queue"}'
                    '[$__range])) / sum(increase(berth_used_gpu_seconds_total{queue=~"$queue"}[$__range]))'
                },
                bars=True,
            ),
            Panel(
                "Age of forecasts and prices",
                "Since they were last told.",
                "s",
                {
                    "carbon {{zone}}": "max by (zone) (berth_carbon_age_seconds)",
                    "prices": "max(berth_prices_age_seconds)",
                },
            ),
        ),
    },
    QUEUE,
)

DASHBOARDS = (FLEET, QUEUES, WORKLOAD, COST)
