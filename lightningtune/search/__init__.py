"""What is tried: search spaces, and the decorator that ties one to a class. No torch is imported here."""
