"""A discrete-event simulator of the systems that the benchmark compares, at sizes that no machine here has.

The clock is simpy's, placement is `psserve.router.policies`, sessions are `psserve.bench.session`, and what comes out
are `RequestRecord`s, as a measured run writes them. docs/simulator.md says what is modelled and what is not.
"""
