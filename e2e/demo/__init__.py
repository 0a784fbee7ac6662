"""The demo: Berth on a cluster of its own, with every sample placed and explained."""
