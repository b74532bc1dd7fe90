"""From votes, ratings and judgements to comparisons and their splits."""
