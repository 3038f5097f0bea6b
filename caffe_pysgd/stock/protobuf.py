"""protobuf, without what takes its older versions a tenth of a second to import.

Up to 3.20 they ask setuptools' pkg_resources to join several folders called ``google.protobuf``,
and the standard library where that is not installed.
"""

from __future__ import annotations

import sys

_absent = "pkg_resources" not in sys.modules
if _absent:
    sys.modules["pkg_resources"] = None  # type: ignore[assignment]
try:
    from google.protobuf import text_format as text_format
finally:
    if _absent:
        del sys.modules["pkg_resources"]
