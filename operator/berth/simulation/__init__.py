"""Virtual time: a scenario's workloads through the real `plan`, on a cluster that is a few hundred lines."""
