"""Search by words and by sparse vectors: postings, and scores over them."""
