"""Writers of every kind hammer a real server while its fence goes up; its log says whether one got past.

`python -m tests.torture --rounds 50` runs the long one; `make test` runs a few rounds of each strategy.
"""
