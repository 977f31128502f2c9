"""What a reader of results sees: statistics, tables, plots, paired comparisons."""
