"""Fine-tune a policy: settings, preparation, optimisation, and the run folder."""
