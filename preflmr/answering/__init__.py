"""Answers to questions, written by a generator that reads what was found."""
