"""Metadata and packaging; the tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
TEMPLATES = "caffe_pysgd.prototxt_templates"

fused = ["numba>=0.55"]
plot = ["matplotlib>=3.5"]
report = ["jinja2>=3"]
parquet = ["pyarrow>=10"]
tensorboard = ["tensorboardX>=2.5"]
test = [
    "pytest>=7",
    "hypothesis>=6",
    "pytest-timeout>=2",
    "playwright>=1.40",  # reads the report in a real browser
    "tensorboard>=2.10",  # reads what was exported
    *fused,
    *plot,
    *report,
    *parquet,
    *tensorboard,
]
lint = ["ruff>=0.5", "mypy>=1.8", "types-PyYAML"]
docs = ["mkdocs>=1.5,<2"]
hdf5 = ["h5py>=2.10"]

setup(
    name="caffe-pysgd",
    version=re.search(
        r'__version__ = "(.+)"', (HERE / "caffe_pysgd" / "__init__.py").read_text()
    ).group(1),
    description="Caffe's parameter update in Python, inside an unmodified caffe train, to the bit",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-2-Clause",
    python_requires=">=3.9",
    packages=[*find_packages(include=["caffe_pysgd", "caffe_pysgd.*"]), TEMPLATES],
    package_dir={TEMPLATES: "prototxt_templates"},
    package_data={
        TEMPLATES: ["*.prototxt"],
        "caffe_pysgd": ["py.typed"],
        "caffe_pysgd.report": ["assets/*", "vendor/*/*"],
    },
    entry_points={"console_scripts": ["caffe-pysgd = caffe_pysgd.cli.main:main"]},
    install_requires=[
        "numpy>=1.19,<2",
        "pyyaml>=5.3",
        "protobuf>=3.12,<4",  # pycaffe's caffe_pb2.py refuses 4
        "click>=8.0",
        "pydantic>=2.5,<3",
        "rich>=12",
    ],
    extras_require={
        "test": test,
        "lint": lint,
        "docs": docs,
        "plot": plot,
        "fused": fused,
        "hdf5": hdf5,
        "report": report,
        "parquet": parquet,
        "tensorboard": tensorboard,
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: BSD License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
