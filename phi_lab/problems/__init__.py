"""Where problems come from: the small world, its benchmarks, published sets."""
