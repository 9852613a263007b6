"""What the commands of ``preflmr`` do."""
