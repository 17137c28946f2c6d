"""How the models and data of the benchmarks are made; `benchmarks/models.py` is the command."""
