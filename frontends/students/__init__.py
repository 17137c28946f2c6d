"""Students of Transformers networks: the trainer that `irtools.students` finds by name.

`networks` reads, makes and writes the networks, `training` has data, losses and the loop;
`distill` and `finetune` are the two jobs, and `trainer` the entry point.
"""
