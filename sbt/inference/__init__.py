"""Ask a model: log-likelihoods over shared prefixes, generation, chat endpoints; finished answers are kept."""
