"""How fast the library is, beside others on the same work: ``python -m benchmarks``. See README.md."""
