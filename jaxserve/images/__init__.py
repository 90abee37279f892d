"""Images to what towers read: fetching, decoding, resizing, patches. Knows neither models nor requests.

In: URLs, files, decoded RGB pixels (`Picture`). Out: `ImageInput`, which the engine takes as part of a prompt
(`PlacedImage`).
"""
