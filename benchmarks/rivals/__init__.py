"""Side-by-side comparison with other engines: one adapter a system, one process a measurement, one driver."""
