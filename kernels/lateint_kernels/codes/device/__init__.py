"""Search and build where torch computes: one engine and one set of operators, whatever the backend."""
