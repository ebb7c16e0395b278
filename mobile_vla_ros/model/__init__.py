"""Kosmos-2 with LoRA, the LSTM action head, the network of both, and the policy bundle."""
