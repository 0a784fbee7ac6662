"""What a pod template may not say, because Berth or Kubernetes says it, or because placement can't honour it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from berth.api.pods import Expression, Resources, Template
from berth.api.problems import Misconfigured, path
from berth.model.workloads import Kind

GPU_RESOURCE = re.compile(r"nvidia\.com/(gpu|mig-).*|(gpu\.intel|amd)\.com/.*")
LAUNCH_VARIABLES = re.compile("PET_.*|MASTER_ADDR|MASTER_PORT|RANK|WORLD_SIZE")
OWN_KEYS = re.compile(r"berth\.dev/.*|batch\.kubernetes\.io/.*|job-name|controller-uid|pod-template-hash")
RESTART_POLICY = {Kind.TRAINING_JOB: "Never", Kind.INFERENCE_SERVICE: "Always"}

_NOT_TOGETHER = "placement can't honour it and kube-scheduler would refuse the node: "
_OURS = {
    "node_name": ("nodeName", "Berth chooses the node: use nodeSelector or affinity to limit the choice"),
    "scheduling_gates": ("schedulingGates", "Berth gates the pods itself: use spec.suspend to hold a job back"),
    "resource_claims": ("resourceClaims", "devices come from spec.gpus: leave resource claims out"),
    "priority_class_name": ("priorityClassName", "pods run under Berth's class: use spec.priorityClassName"),
    "priority": ("priority", "pods run under Berth's class: use spec.priorityClassName"),
    "preemption_policy": ("preemptionPolicy", "pods run under Berth's class: use spec.priorityClassName"),
}
_OURS_IN_JOBS = {
    "hostname": ("hostname", "the Job names each worker <name>-<attempt>-<index>: leave it out"),
    "subdomain": ("subdomain", "it is the attempt's Service, so that workers find each other: leave it out"),
}


def problems(template: Template, kind: Kind) -> Iterator[Misconfigured]:
    """Everything wrong with the template of a workload of this kind, by field."""
    yield from _metadata(template)
    yield from _names(template)
    yield from _fields(template, kind)
    yield from _environment(template, kind)
    yield from _resources(template)
    yield from _affinity(template)


def _metadata(template: Template) -> Iterator[Misconfigured]:
    metadata = template.metadata
    if metadata is None:
        return
    for name, keys in (("labels", metadata.labels), ("annotations", metadata.annotations)):
        for key in keys or ():
            if OWN_KEYS.fullmatch(key):
                where = path("spec", "template", "metadata", name, key)
                yield Misconfigured(where, "set by Berth or Kubernetes: use another key")


def _names(template: Template) -> Iterator[Misconfigured]:
    seen: dict[str, str] = {}
    for name, index, container in template.spec.all_containers():
        where = _at(name, index, "name")
        if container.name in seen:
            yield Misconfigured(where, f"{container.name!r} is the name of {seen[container.name]} too: rename one")
        seen.setdefault(container.name, path(name, index))


def _fields(template: Template, kind: Kind) -> Iterator[Misconfigured]:
    spec = template.spec
    wanted = RESTART_POLICY[kind]
    if spec.restart_policy not in (None, wanted):
        message = f"must be {wanted} in a {kind.value}, got {spec.restart_policy!r}: set {wanted} or leave it out"
        yield Misconfigured(_at("restartPolicy"), message)
    ours = _OURS | (_OURS_IN_JOBS if kind is Kind.TRAINING_JOB else {})
    for attribute, (field, message) in ours.items():
        if getattr(spec, attribute) not in (None, "", []):
            yield Misconfigured(_at(field), message)


def _environment(template: Template, kind: Kind) -> Iterator[Misconfigured]:
    for name, index, container in template.spec.all_containers():
        for place, variable in enumerate(container.env or ()):
            where = _at(name, index, "env", place, "name")
            if kind is Kind.TRAINING_JOB and LAUNCH_VARIABLES.fullmatch(variable.name):
                yield Misconfigured(where, f"{variable.name} is set by Berth for each worker: leave it out")
            if variable.name == "NVIDIA_VISIBLE_DEVICES" and variable.value not in ("none", "void"):
                message = "set by the device plugin: leave it out, or every container sees GPUs that are not its own"
                yield Misconfigured(where, message)


def _resources(template: Template) -> Iterator[Misconfigured]:
    yield from _devices(template.spec.resources, "resources")
    for name, index, container in template.spec.all_containers():
        yield from _devices(container.resources, name, index, "resources")


def _devices(resources: Resources | None, *where: str | int) -> Iterator[Misconfigured]:
    if resources is None:
        return
    if resources.claims:
        yield Misconfigured(_at(*where, "claims"), "devices come from spec.gpus: leave resource claims out")
    for kind, amounts in (("limits", resources.limits), ("requests", resources.requests)):
        for resource in amounts or ():
            if GPU_RESOURCE.fullmatch(resource):
                message = "Berth adds the GPUs: ask for them in spec.gpus instead (count, profile or memory)"
                yield Misconfigured(_at(*where, kind, resource), message)


def _affinity(template: Template) -> Iterator[Misconfigured]:
    affinity = template.spec.affinity
    if affinity is not None:
        pairs = (("podAffinity", affinity.pod_affinity), ("podAntiAffinity", affinity.pod_anti_affinity))
        for name, rule in pairs:
            if rule is not None and rule.required:
                message = _NOT_TOGETHER + "use a preferred term, or spec.topology of a TrainingJob"
                yield Misconfigured(_at("affinity", name, "requiredDuringSchedulingIgnoredDuringExecution"), message)
        yield from _node_affinity(template)
    for index, constraint in enumerate(template.spec.topology_spread_constraints or ()):
        if constraint.when_unsatisfiable != "ScheduleAnyway":
            where = _at("topologySpreadConstraints", index, "whenUnsatisfiable")
            yield Misconfigured(where, _NOT_TOGETHER + "use ScheduleAnyway")


def _node_affinity(template: Template) -> Iterator[Misconfigured]:
    affinity = template.spec.affinity
    required = affinity.node_affinity.required if affinity and affinity.node_affinity else None
    under = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    for index, term in enumerate(required.node_selector_terms if required else ()):
        if term.match_fields:
            message = "placement reads labels only: use matchExpressions on kubernetes.io/hostname"
            yield Misconfigured(_at(*under, index, "matchFields"), message)
        elif not term.match_expressions:
            yield Misconfigured(_at(*under, index), "an empty term matches no node: add matchExpressions or drop it")
        for place, expression in enumerate(term.match_expressions or ()):
            if problem := _values_problem(expression):
                yield Misconfigured(_at(*under, index, "matchExpressions", place, "values"), problem)


def _values_problem(expression: Expression) -> str:
    values = expression.values or []
    if expression.operator in ("In", "NotIn"):
        return "" if values else f"{expression.operator} needs at least one value"
    if expression.operator in ("Gt", "Lt"):
        whole = len(values) == 1 and re.fullmatch("-?[0-9]+", values[0])
        return "" if whole else f'{expression.operator} needs one whole number, in quotes, such as ["8"]'
    return f"{expression.operator} takes no values: leave them out" if values else ""


def _at(*parts: str | int) -> str:
    return path("spec", "template", "spec", *parts)
