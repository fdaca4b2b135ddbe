"""A trained model learns something more: ``preferences``, which of two answers is better."""
