"""From a cluster to the explanation of one of its workloads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches

from berth.adapters.kube import KubeApi, connect
from berth.adapters.oneshot import NotInstalled, Unreadable, namespace_of
from berth.cli.names import RESOURCES, SHORT
from berth.cli.view import View, read
from berth.control.ports import ApiError
from berth.model.workloads import Kind, Workload
from berth.planning.explain import Explanation, explain

MOST_SUGGESTED = 3


class UnknownWorkload(Exception):
    """There is none of that kind and name; the message says which come close."""


async def explained(kubeconfig: str | None, namespace: str, kind: Kind, name: str) -> Explanation:
    """The explanation, of the context's namespace where none is given.

    Raises UnknownWorkload, Unreadable or ApiError.
    """
    async with connect(kubeconfig) as api:
        namespace = namespace or namespace_of(kubeconfig)
        try:
            view = await read(api, namespace)
        except NotInstalled:
            raise
        except Unreadable as error:
            raise Unreadable(f"{error}{await _recorded(api, kind, namespace, name)}") from error
    return explanation_in(view, namespace, kind, name)


def explanation_in(view: View, namespace: str, kind: Kind, name: str) -> Explanation:
    """The explanation of a workload in that view, of its namespace where none is given. Raises UnknownWorkload."""
    found = find(view.snapshot.workloads, kind, namespace or view.namespace, name)
    told = explain(view.snapshot, view.config.policy(), view.now, found)
    return replace(told, notes=(*told.notes, *view.notes))


def find(workloads: Sequence[Workload], kind: Kind, namespace: str, name: str) -> Workload:
    """The workload of that name. Raises UnknownWorkload."""
    there = {(w.ref.kind, w.ref.namespace, w.ref.name): w for w in workloads}
    found = there.get((kind, namespace, name))
    if found is not None:
        return found
    message = f"there is no {kind} {name} in namespace {namespace}"
    elsewhere = sorted(f"{SHORT[k]}/{n} in namespace {ns}" for k, ns, n in there if n == name)
    near = sorted(n for k, ns, n in there if (k, ns) == (kind, namespace))
    close = [f"{SHORT[kind]}/{n}" for n in get_close_matches(name, near, n=MOST_SUGGESTED)]
    meant = (close + elsewhere)[:MOST_SUGGESTED]
    raise UnknownWorkload(message + (f": did you mean {' or '.join(meant)}?" if meant else ""))


async def _recorded(api: KubeApi, kind: Kind, namespace: str, name: str) -> str:
    """What the operator last wrote of the workload, where at least that can be read."""
    with suppress(ApiError):
        status = (await api.get(RESOURCES[kind], namespace, name)).get("status") or {}
        verdict = status.get("verdict") or {}
        if verdict:
            return f"\nthe operator last wrote: {verdict.get('reason')}: {verdict.get('message')}"
    return ""
