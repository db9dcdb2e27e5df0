"""What is known of the CuTe DSL, whoever's kernels it compiles."""
