"""The same numbers in other types: GGUF files made of one file's dequantised tensors."""

from __future__ import annotations

from pathlib import Path

import gguf

FORMS = ("stored", "Q8_0", "BF16", "F32")
"""The file as it is, and what its matrices are written as; vectors stay float32."""


def write_form(source: Path, form: str, path: Path) -> Path:
    """The file itself, or its copy with all matrices of another type."""
    if form == "stored":
        return source
    reader, kind = gguf.GGUFReader(source), gguf.GGMLQuantizationType[form]
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(path, architecture)
    _copy_fields(reader, writer)
    for tensor in reader.tensors:
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
        own = kind if len(tensor.shape) > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(numbers, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _copy_fields(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        of = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=of)
