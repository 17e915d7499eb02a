"""hp_jax: which attention heads a Transformer needs, and a smaller Transformer without the others.

`heads` has the mask algebra, `importance` the scores, `grid` the evaluation of many masks,
`pruning` the orders, `stats` the tests; they know a model only as a `task.Task`. `experiment` puts
them together for classification and translation, `cli` is the command. Shape letters are explained
in `task`.
"""
