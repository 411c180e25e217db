"""Coverage-guided fuzzing: one module a target, whose ``run`` takes the fuzzer's bytes."""
