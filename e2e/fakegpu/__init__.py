"""A fake GPU fleet: simulated boards behind a real kubelet device plugin, or behind KWOK nodes."""
