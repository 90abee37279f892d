"""Images to what towers read: sizes, resizing, patches. Pillow and NumPy only; knows neither models nor requests.

In: decoded RGB pixels (`Picture`). Out: `ImageInput`, which the engine takes as part of a prompt (`PlacedImage`).
"""
