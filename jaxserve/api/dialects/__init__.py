"""Other APIs as translations to chat completions and back: Anthropic's messages, OpenAI's responses.

In: a body that the dialect's own schema has checked. Out: the same request as a chat completion, and a `Wire` that
writes the chunks of its answer in the dialect's words. What has no meaning here the schema refuses by name.
"""
