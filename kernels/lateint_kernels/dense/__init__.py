"""MaxSim of dense tokens: from what a user gives to the backend that scores it, and back to gradients."""
