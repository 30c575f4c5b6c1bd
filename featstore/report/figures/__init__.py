"""Plotting functions: plain numbers in, a `Picture` out; any run, report or notebook may use them."""
