"""Demo tasks: seeded generators of training and test items, and the corpus that the demo base reads first."""
