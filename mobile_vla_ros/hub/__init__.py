"""Policies and episodes on a hub: what is sent, its cards, and the way there and back."""
