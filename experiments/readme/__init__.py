"""The documents' generated blocks: every number and picture in them comes from a recorded run."""
