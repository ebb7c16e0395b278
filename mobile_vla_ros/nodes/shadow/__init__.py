"""Shadow: what the policy would do while a person drives."""
