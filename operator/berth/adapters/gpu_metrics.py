"""What boards do and for whom, for Prometheus: the series of one scrape, and nothing that outlives it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from berth.control.board_use import Sample, Usage, shares, utilization_of
from berth.control.gpus import Gpu, GpuInstance, Load, Pod, Reading, device_of

LABELS = ("node", "gpu", "uuid", "model", "profile", "instance", "namespace", "pod", "workload", "queue")
STALE_SECONDS = 30.0  # an older sample says nothing of now: three looks were missed


@dataclass(frozen=True, slots=True)
class Whose:
    """What a pod is part of."""

    workload: str = ""
    queue: str = ""


Holding = Mapping[str, frozenset[Pod]]  # by the UUID of a board or MIG device
Values = dict[str, float | None]  # by the metric's name

GAUGES = {
    "berth_gpu_utilization_ratio": "Share of the time in which anything ran; of a board in MIG mode its instances' sum",
    "berth_gpu_sm_active_ratio": "Share of the SMs that were busy, on average",
    "berth_gpu_memory_used_bytes": "Memory in use",
    "berth_gpu_memory_total_bytes": "Memory that there is",
    "berth_gpu_power_watts": "Power; of an instance its share of the board's, of a board what no instance has",
    "berth_gpu_temperature_celsius": "Temperature of a board",
    "berth_gpu_healthy": "Whether a board can be used: 1 or 0",
    "berth_gpu_last_xid": "The last Xid error of a board; 0: none since the agent listens",
}
COUNTERS = {
    "berth_gpu_energy_joules": "Energy since the agent began; shared out as power is",
    "berth_gpu_ecc_errors": "Memory errors of a board since its driver was loaded",
    "berth_gpu_xid_errors": "Errors of a board since the agent listens, by their Xid",
}
MORE = {"berth_gpu_ecc_errors": ("kind",), "berth_gpu_xid_errors": ("xid",)}  # labels beyond LABELS


@dataclass(slots=True)
class Page:
    """One scrape of one node. A registry to `prometheus_client`."""

    node: str
    usage: Usage
    holders: Mapping[str, Pod] | None  # as the kubelet says now; None: it does not answer
    whose: Mapping[Pod, Whose]  # pods of the node, as the API server has them
    now: float
    _families: dict[str, Metric] = field(default_factory=dict)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        """The families."""
        for name, about in GAUGES.items():
            self._families[name] = GaugeMetricFamily(name, about, labels=LABELS)
        for name, about in COUNTERS.items():
            self._families[name] = CounterMetricFamily(name, about, labels=(*LABELS, *MORE.get(name, ())))
        sample = self.usage.last
        fresh = sample is not None and self.now - sample.at <= STALE_SECONDS
        if sample is not None and fresh:
            self._fill(sample)
        about = "Whether it answers: the boards (their driver, or dcgm-exporter), or the kubelet"
        up = GaugeMetricFamily("berth_agent_source_up", about, labels=("node", "source"))
        up.add_metric([self.node, "boards"], float(fresh))
        up.add_metric([self.node, "kubelet"], float(self.holders is not None))
        return [*self._families.values(), up]

    def _fill(self, sample: Sample) -> None:
        now, then = holding(self.holders or {}), holding(sample.holders)
        for gpu in sample.inventory.gpus:
            labels = self._labels(gpu, None, now)
            reading = sample.readings.get(gpu.uuid)
            self._add(labels, {"berth_gpu_healthy": float(gpu.healthy)})
            if reading is None:
                continue
            self._board(labels, reading)
            for instance, share in shares(gpu):
                labels = self._labels(gpu, instance, now)
                self._add(labels, {"berth_gpu_energy_joules": self.usage.joules(gpu, instance)})
                devices = instance.devices if instance else (gpu.uuid,)
                if held_by(now, devices) == held_by(then, devices):  # else it is what another pod did
                    self._add(labels, _work(gpu, instance, reading, share))

    def _board(self, labels: tuple[str, ...], reading: Reading) -> None:
        """What only whole boards have."""
        last = 0 if reading.last_xid is None and reading.xids is not None else reading.last_xid
        self._add(labels, {"berth_gpu_temperature_celsius": reading.celsius, "berth_gpu_last_xid": last})
        errors = {"corrected": reading.ecc_corrected, "uncorrected": reading.ecc_uncorrected}
        for kind, count in errors.items():
            self._add((*labels, kind), {"berth_gpu_ecc_errors": count})
        for xid, count in (reading.xids or {}).items():
            self._add((*labels, str(xid)), {"berth_gpu_xid_errors": count})

    def _labels(self, gpu: Gpu, instance: GpuInstance | None, held: Holding) -> tuple[str, ...]:
        profile = gpu.profile_of(instance) if instance else None
        pod = held_by(held, instance.devices if instance else (gpu.uuid,))
        whose = self.whose.get(pod, Whose()) if pod else Whose()
        return (
            self.node,
            str(gpu.index),
            gpu.uuid,
            gpu.model.name,
            profile.name if profile else instance.profile_name if instance else "",
            str(instance.id) if instance else "",
            pod.namespace if pod else "",
            pod.name if pod else "",
            whose.workload,
            whose.queue,
        )

    def _add(self, labels: tuple[str, ...], values: Mapping[str, float | None]) -> None:
        for name, value in values.items():
            if value is not None:
                self._families[name].add_metric(labels, value)  # type: ignore[attr-defined]


def holding(holders: Mapping[str, Pod]) -> Holding:
    """All pods of each device: shared ones have several."""
    found: dict[str, set[Pod]] = defaultdict(set)
    for device, pod in holders.items():
        found[device_of(device)].add(pod)
    return {device: frozenset(pods) for device, pods in found.items()}


def held_by(held: Holding, devices: Iterable[str]) -> Pod | None:
    """The one pod that has these devices; None for none, and for several, since nobody knows which does what."""
    pods = frozenset[Pod]().union(*(held.get(device, frozenset()) for device in devices))
    return next(iter(pods)) if len(pods) == 1 else None


def _work(gpu: Gpu, instance: GpuInstance | None, reading: Reading, share: float) -> Values:
    """What an instance does, or a board, to which only the power of what no instance has is left: none counts twice."""
    load = reading.load if instance is None else reading.instances.get(instance.id, Load())
    return {
        "berth_gpu_utilization_ratio": utilization_of(gpu, reading) if instance is None else load.utilization,
        "berth_gpu_sm_active_ratio": load.sm_active,
        "berth_gpu_memory_used_bytes": load.memory_used,
        "berth_gpu_memory_total_bytes": load.memory_total,
        "berth_gpu_power_watts": None if reading.watts is None else reading.watts * share,
    }
