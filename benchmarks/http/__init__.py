"""jaxserve's server beside llama.cpp's on the same GGUF files: `python -m benchmarks.http FILE`.

In: a GGUF file, and a Python that has the package xllamacpp (`pip install xllamacpp` in an environment of its own).
Out: a table and a result file. The two servers run side by side and take turns, request by request.
"""
