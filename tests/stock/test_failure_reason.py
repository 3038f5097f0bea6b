"""The one line that says why Caffe died, from the logs of several Caffes."""

from __future__ import annotations

import pytest

from caffe_pysgd.stock import pycaffe

LINES = (
    "{I} 21:50:20.462841 20862 layer_factory.hpp:77] Creating layer mnist\n"
    "{F} 21:50:20.462888 20862 db_lmdb.hpp:15] Check failed: mdb_status == 0 (2 vs. 0) No such "
    "file or directory\n"
    "*** Check failure stack trace: ***\n"
    "    @     0x7f0c6a5b6a3d  google::LogMessage::Fail()\n"
)


@pytest.mark.parametrize("day", ["1125", "20261125"], ids=["glog 0.4", "glog 0.5"])
def test_a_failed_check_is_told_with_its_place(day: str) -> None:
    log = LINES.format(I=f"I{day}", F=f"F{day}")
    assert pycaffe.failure_reason(log) == (
        "Caffe says: Check failed: mdb_status == 0 (2 vs. 0) No such file or directory "
        "(db_lmdb.hpp:15)"
    )
