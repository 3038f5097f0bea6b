"""Many runs from one YAML: a sweep. Search, storage, pruning and parallelism are Optuna's."""
