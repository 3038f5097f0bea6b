"""What Caffe answered before, kept for as long as all that the answer depends on is the same.

Asking Caffe takes a process that loads it. What a question depends on is part of the question; what
is in large files is known by their stamps. A kept answer is one of the files of ``cache.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import Any, Callable, Iterable, List, Optional, Union

from caffe_pysgd.cache import keep, keep_newest, read_kept
from caffe_pysgd.version import __version__

_PREFIX, _MOST, _LARGEST = "answer-", 512, 1 << 18  # 128 MB at most, about 1 as a rule

# By these another Caffe may be loaded, or another layer's module.
_ENVIRONMENT = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME")

# Two changes within a tick of the system's clock leave the same stamp.
_SETTLED_NS = 100_000_000


class Question:
    """A question to Caffe.

    Args:
        task: the function that answers it; its module is part of the question.
        parts: what the answer depends on.
    """

    def __init__(self, task: Callable[..., Any], *parts: Union[str, bytes]) -> None:
        self._asked = time.time_ns()
        code = task.__code__
        asked = [__version__, code.co_name, json.dumps(stamp(code.co_filename))]
        digest = hashlib.sha256()
        for part in (*asked, *(os.environ.get(name, "") for name in _ENVIRONMENT), *parts):
            content = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
            digest.update(b"%d:" % len(content) + content)
        self._name = _PREFIX + digest.hexdigest()

    def kept(self) -> Optional[bytes]:
        """Return the answer of before; None if there is none that still holds."""
        stamps, _, answer = read_kept(self._name).partition(b"\n")
        if not stamps:
            return None
        holds = all(stamp(path) == then for path, then in json.loads(stamps).items())
        return answer if holds else None

    def keep(self, answer: bytes, files: Iterable[str] = ()) -> None:
        """Keep an answer.

        Args:
            answer: Caffe's.
            files: what else it depends on. Where one of them was changed just now, nothing is kept.
        """
        stamps = {os.path.abspath(path): stamp(path) for path in files}
        content = json.dumps(stamps).encode() + b"\n" + answer
        settled = self._asked - _SETTLED_NS
        if len(content) > _LARGEST or any(not s or s[-1] > settled for s in stamps.values()):
            return
        keep(self._name, content, replace=True)
        keep_newest(_PREFIX, _MOST)


def stamp(path: str) -> List[int]:
    """Return what changes with a file; nothing for a file that is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
