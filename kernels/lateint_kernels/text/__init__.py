"""Search by words: postings, and BM25 over them."""
