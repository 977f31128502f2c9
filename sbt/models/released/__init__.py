"""The authors' released checkpoints, converted to arms of this study."""
