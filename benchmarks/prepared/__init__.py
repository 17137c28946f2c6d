"""How the models and data of the benchmarks are made."""
