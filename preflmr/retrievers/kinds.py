"""Names: of the sides of a model, and of the kinds that there are adapters for; nothing is imported for that."""

QUERY, DOCUMENT = "query", "document"  # the sides of a model
FLMR_KIND = "flmr"
PAGES = {
    "colpali": ("ColPaliForRetrieval", "ColPaliProcessor"),
    "colqwen2": ("ColQwen2ForRetrieval", "ColQwen2Processor"),
    "colmodernvbert": ("ColModernVBertForRetrieval", "ColModernVBertProcessor"),
}
SENTENCE_TRANSFORMERS, PYLATE = "sentence-transformers", "pylate"
KINDS = (FLMR_KIND, *PAGES, SENTENCE_TRANSFORMERS, PYLATE)
