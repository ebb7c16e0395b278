"""Windows and chunks, the split, the one `preprocess`, and the torch dataset."""
