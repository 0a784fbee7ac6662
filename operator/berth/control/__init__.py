"""Observe and apply: the picture of the cluster, the cycle, and the builders of what the operator makes."""
