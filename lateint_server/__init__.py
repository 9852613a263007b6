"""Indexes of lateint as a service over HTTP, with a page that shows why a document was found; see docs/serving.md."""
