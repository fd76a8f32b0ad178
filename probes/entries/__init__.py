"""What sweeps store of each probe, a file a subject."""
