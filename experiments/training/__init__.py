"""How a run is trained: config, presets, what is built, iterations, processes, the loop."""
