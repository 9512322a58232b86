"""The core: orders, the any-order transformer, data, probes, and drawing."""
