"""Fine-tuning of generators on what a retriever found, as RA-VQA v2 does (Lin et al. 2023, arXiv 2309.17133)."""
