"""The formats of exported graphs: how a file is written, and how its runtime computes features."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

from xkd.encoders.exchange.graph import OUTPUT
from xkd.errors import UserError

WORDS = "xkd.json"  # of a torch.export file
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
PROTOBUF_BYTES = 2**31  # a file in the format of ONNX holds less


class Format(NamedTuple):
    """How graphs are written and run.

    Attributes:
        check: raises a UserError where a package is missing.
        write: writes a traced graph, the name of its input and what the file says of itself to a path.
        load: returns a function that computes features as the runtime of the format does.
    """

    check: Callable[[], None]
    write: Callable[[ExportedProgram, str, dict[str, str], Path], None]
    load: Callable[[Path], Callable[[Tensor], Tensor]]


def check_onnx() -> None:
    """Checks that the packages of the extra are installed.

    Raises:
        UserError: one is not.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"export to ONNX needs {' and '.join(missing)}: pip install 'xkd[onnx]'")


def write_onnx(program: ExportedProgram, name: str, words: dict[str, str], path: Path) -> None:
    """Writes one ONNX file; what it says of itself is in `metadata_props` and in the `doc_string` of input and output.

    Raises:
        UserError: more weights than such a file can hold.
    """
    import onnx

    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size >= PROTOBUF_BYTES:
        raise UserError(f"{size / 1e9:.1f} GB of weights; one ONNX file holds 2.1 GB: use --format torch_export")
    # The exporter reports its steps and, of operators that it does not use here, what it lacks.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        made = torch.onnx.export(program, dynamo=True, input_names=[name], output_names=[OUTPUT])
        assert made is not None
        model = made.model_proto
    onnx.helper.set_model_props(model, words)
    model.doc_string, model.producer_name = words["description"], "xkd"
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = words[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = name
    onnx.save(model, path)


def load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Opens an ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    return lambda clips: torch.from_numpy(session.run(None, {name: clips.numpy()})[0])


def write_torch_export(program: ExportedProgram, _name: str, words: dict[str, str], path: Path) -> None:
    """Writes a file of `torch.export.save`; what it says of itself is in the extra file `WORDS`, as JSON."""
    # A file object, since torch.export expects names that end in .pt2.
    with open(path, "wb") as file:
        torch.export.save(program, file, extra_files={WORDS: json.dumps(words, indent=2)})


def load_torch_export(path: Path) -> Callable[[Tensor], Tensor]:
    """Opens a file of `torch.export.save`."""
    with open(path, "rb") as file:
        module = torch.export.load(file).module()
    return lambda clips: module(clips)


FORMATS = {
    "onnx": Format(check_onnx, write_onnx, load_onnx),
    "torch_export": Format(lambda: None, write_torch_export, load_torch_export),
}
