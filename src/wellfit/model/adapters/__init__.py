"""A frozen base, and small trained matrices beside it: LoRA and its kin."""
