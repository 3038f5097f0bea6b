"""The raw figures, as a file that one can read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, Optional


def write_figures(path: Optional[Path], figures: Dict[str, Any]) -> None:
    """Write raw figures as JSON, a list of numbers to a line, where a file is wanted."""
    if path:
        text = json.dumps(figures, indent=1)
        text = re.sub(r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
