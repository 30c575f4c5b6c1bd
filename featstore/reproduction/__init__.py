"""Reproduction of the study that featstore grew from, beside an honest protocol; see `featstore.paper`.

Ji et al. 2020, medRxiv 10.1101/2020.12.09.20246371. Nothing here computes a feature, fits a model or draws a line: it
says which public function is called with what, in which order, and what the differences between the answers mean.
"""
