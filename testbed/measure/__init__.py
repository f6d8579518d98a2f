"""What the numbers mean: events, probes and frames in; gaps, phases, statistics and a verdict out. Pure."""
