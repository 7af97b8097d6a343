"""Parts of scripts/bench_router.py: canned workers, a light client, the routers under test, and what is measured."""
