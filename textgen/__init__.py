"""textgen: a plugin-based text generation framework.

run = textgen.run("pipeline.toml")
print(run.generations[0])
generator = textgen.load("runs/pipeline")
print(generator.generate("it has"))
"""

import logging as _logging
from typing import Any as _Any

from textgen import lazy as _lazy

__all__, _find = _lazy.names_of(__name__)


def __getattr__(name: str) -> _Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("textgen-engine")
    return _find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_logging.getLogger("textgen").addHandler(_logging.NullHandler())
