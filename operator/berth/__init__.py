"""Berth gives every GPU workload on a Kubernetes cluster its berth."""

__version__ = "0.1.0"
