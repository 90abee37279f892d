"""The whole API contract as types: models that requests are checked by, dictionaries that responses are built as."""
