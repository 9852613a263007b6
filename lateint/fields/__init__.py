"""What documents carry besides tokens: texts and metadata, as arrays of their segment; knows no search."""
