"""What pyproject.toml cannot say: the shipped configs travel inside the wheel.

No op is compiled in this version: multi-scale deformable attention runs on its PyTorch reference,
so that installing needs neither a compiler nor a CUDA toolkit.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["rankseg_d2", "rankseg_d2.*"]), "rankseg_d2.configs"],
    package_dir={"rankseg_d2.configs": "configs"},
    package_data={"rankseg_d2": ["**/*.json"], "rankseg_d2.configs": ["**/*.yaml"]},
)
