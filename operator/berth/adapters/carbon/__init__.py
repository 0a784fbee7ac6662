"""Sources of carbon intensity, each behind `control.ports.CarbonSource`."""
