"""Dashboards and alerts: what makes the former, and a real Prometheus to try both on."""
