"""What rewritten code calls: the helpers look at a value and either run plain Python or stage a graph region."""
