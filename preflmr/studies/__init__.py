"""Many runs that answer one question: which checkpoints a study needs, and what comes of them."""
