"""The packages; all else about the project is in pyproject.toml."""

from setuptools import find_packages, setup

# The templates lie at the top level, as users know them, and are installed inside the package.
TEMPLATES = "caffe_pysgd.prototxt_templates"

setup(packages=[*find_packages(include=["caffe_pysgd", "caffe_pysgd.*"]), TEMPLATES])
