"""Kosmos-2 with LoRA, the LSTM action head, the network that joins them, and its bundle."""
