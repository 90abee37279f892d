"""GGUF files: their header, the configuration and the parameters they hold (format: the ggml project's docs/gguf.md).

`file` reads a header, `fields` makes a `config.json` of it, `names` says which tensor each parameter is, `pieces`
reads the numbers. What tokens and templates a file has is read in `text.tokenizers.gguf`.
"""
