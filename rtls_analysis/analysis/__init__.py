"""DataFrame in, DataFrame out: a module per question."""
