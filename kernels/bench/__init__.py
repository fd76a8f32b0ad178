"""`python -m kernels.bench`: batch norm's implementations and what one would use instead, side by side in one run."""
