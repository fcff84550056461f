"""NIR files: HDF5, written all at once, and checked before nir reads them."""

import io
import os
from pathlib import Path

import h5py
import nir

from nqlava.command.files import replacing
from nqlava.errors import shown
from nqlava.hdf5 import CheckedFile, NetxError, existing

MAX_NODES = 100_000
"""Groups and datasets in one file."""
_MAX_DEPTH = 8


def write(graph: nir.NIRGraph, path: str | os.PathLike[str]) -> None:
    """Writes a graph; equal graphs give equal bytes, and a failure leaves what was there before.

    Raises:
        FileError: the file cannot be written.
    """
    content = io.BytesIO()
    nir.write(content, graph)
    with replacing(Path(path)) as stream:
        stream.write(content.getvalue())


def read(path: str | os.PathLike[str]) -> nir.NIRGraph:
    """The graph that ``path`` holds; every size is checked before it is allocated, and nothing is unpickled.

    Raises:
        NetxError: the file is not a NIR graph, or is a folder or the like.
        MissingFileError, FileError: there is no such file, or it cannot be read.
    """
    where = existing(path)
    try:
        with h5py.File(where, "r") as file:
            _Walk(where).check(file)
        graph = nir.read(where, type_check=False)
    except NetxError:
        raise
    except Exception as error:  # h5py's for damaged files; assertions, KeyError, TypeError, ... of nir's constructors
        raise NetxError(f"{where}: not a readable NIR file: {type(error).__name__}: {shown(error, 300)}") from None
    for name, node in {"graph": graph, **graph.nodes}.items():
        if not isinstance(node.metadata, dict):
            raise NetxError(f"{where}: {name}: metadata is {shown(node.metadata)}; allowed: a group")
    return graph


class _Walk(CheckedFile):
    """Looks at everything in a file before it is read."""

    def check(self, file: h5py.File) -> None:
        """NetxError where something is linked, stored elsewhere, neither numbers nor text, or too large."""
        self._left = MAX_NODES
        node = self.group("file", file, "node")
        self._visit("node", node, 0)
        kind = self.name("node", node, "type")
        if kind != "NIRGraph":
            self.fail("node", "type", kind, "NIRGraph")
        allowed = set(nir.ir.__all__) - {"NIRNode", "str2NIRNode", "dict2NIRNode"}
        nodes = self.group("node", node, "nodes")
        for key in nodes:
            kind = self.name(key, self.group("nodes", nodes, key), "type")
            if kind not in allowed:
                self.fail(f"node {key}", "type", kind, ", ".join(sorted(allowed)))

    def name(self, where: str, group: h5py.Group, key: str) -> str:
        """A scalar string of at most 80 characters."""
        dataset = self._dataset(where, group, key)
        if dataset.shape != () or not self.is_text(dataset):
            self.fail(where, key, f"of type {dataset.dtype}", "a string")
        return bytes(dataset[()]).decode("utf-8", "replace")[:80]

    def _visit(self, where: str, group: h5py.Group, depth: int) -> None:
        if depth > _MAX_DEPTH:
            self.fail(where[:80], "depth of groups", f"above {_MAX_DEPTH}", f"at most {_MAX_DEPTH}")
        for key in group:
            self._left -= 1
            if self._left < 0:
                self.fail("file", "number of groups and arrays", f"above {MAX_NODES}", f"at most {MAX_NODES}")
            self._hard_link(where, group, key)
            if group.get(key, getclass=True) is h5py.Group:
                self._visit(f"{where}/{key}", group[key], depth + 1)
                continue
            dataset = self._dataset(where, group, key)
            if dataset.dtype.kind not in "fiub" and not self.is_text(dataset):
                self.fail(where, key, f"of type {dataset.dtype}", "numbers or text")
