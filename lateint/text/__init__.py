"""From texts to terms and their postings; knows no index."""
