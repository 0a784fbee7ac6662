"""Kubernetes clusters for tests and the demo: kind, plain local processes, or one that exists already."""
