"""Fine-tuning: its configuration, loop, metrics, baselines and evaluation."""
