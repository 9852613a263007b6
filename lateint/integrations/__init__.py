"""lateint inside other frameworks, one module each, for where the framework is installed. See docs/integrations.md.

`lateint.integrations.langchain`, `llama_index`, `haystack`, `pylate`, `mteb` and `dspy`. Importing this package imports
none of them.
"""
