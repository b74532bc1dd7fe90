"""Ablation studies: a grid of recipes over data sets and seeds, run once each, compared honestly.

`study` reads what is asked, `grid` resolves it into variants, `datasets` makes the data, `cells` runs one recipe on one
data set with one seed, the engines (`local`, `cluster`) run many, `results`, `statistics`, `tables` and `plots` say
what came out; `conduct` joins them.
"""
