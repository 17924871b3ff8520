"""Puts quick stand-ins in the place of the stages, for tests of the engines alone.

On PYTHONPATH, Python imports this at start. Settings, command line, code fingerprints and workflow stay the real ones.
"""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


class Finder:
    """Finds xkd.stages.<stage> in this folder."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        package, _, stage = name.rpartition(".")
        if package == "xkd.stages":
            return importlib.util.spec_from_file_location(name, FOLDER / f"stage_{stage}.py")
        return None


sys.meta_path.insert(0, Finder)
