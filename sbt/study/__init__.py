"""How a study and its steps run: parameters, plan, runs, pipeline, estimate."""
