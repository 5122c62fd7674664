"""Where results live: storage, folder, what a trial's record says. No torch is imported here."""
