"""What the checkup finds before the first step: faulty set-ups of every kind, and healthy ones that look like them."""
