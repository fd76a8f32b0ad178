"""fathom's ensembles against what else trains many depths, in one run on the same data."""
