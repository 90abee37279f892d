"""One small file per model family: how it reads `config.json`, and where its weights are in the checkpoint.

A family file defines `FAMILY`, a `Family`; `models.registry` names the file. See docs/add-a-model.md.
"""
