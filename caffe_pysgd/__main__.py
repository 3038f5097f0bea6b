"""``python -m caffe_pysgd`` is ``caffe-pysgd``."""

from caffe_pysgd.cli.main import main

main()
