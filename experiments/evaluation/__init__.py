"""What is measured of runs: orders, probes, agents, decodings, readings, and their pictures."""
