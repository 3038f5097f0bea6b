"""A seal on what the user recorded here; without the secret in their cache, nobody can make one.

Training a recorded run again runs the code that its manifest names. So it must be known whose
manifest that is, and the ledger does not tell: whoever writes a file can hash it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any, Mapping

from caffe_pysgd.cache import keep, read_kept

_SEAL, _SECRET = "seal", "secret"


def sealed(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a manifest with the user's seal; as it is where no secret can be kept."""
    secret = read_kept(_SECRET)
    if not secret and keep(_SECRET, os.urandom(32)):
        secret = read_kept(_SECRET)
    return {**manifest, _SEAL: _seal(manifest, secret)} if secret else manifest


def made_here(manifest: Mapping[str, Any]) -> bool:
    """Return whether the user recorded this, in a folder that is still there and still theirs."""
    secret, found = read_kept(_SECRET), manifest.get(_SEAL)
    folder = Path(str(manifest.get("working_directory", "")))
    if not secret or not isinstance(found, str):
        return False
    if not hmac.compare_digest(found.encode(errors="replace"), _seal(manifest, secret).encode()):
        return False
    return folder.is_absolute() and folder.is_dir() and folder.stat().st_uid in (0, os.getuid())


def _seal(manifest: Mapping[str, Any], secret: bytes) -> str:
    plain = json.loads(json.dumps({k: v for k, v in manifest.items() if k != _SEAL}))
    content = json.dumps(plain, sort_keys=True).encode()
    return hmac.new(secret, content, hashlib.sha256).hexdigest()
