"""Convolutions of many networks at once, each with its own kernel."""
