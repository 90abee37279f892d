"""What pyproject.toml can't say: a wheel with kernels (`python -m jaxserve.native`) is for one kind of machine."""

from pathlib import Path

from setuptools import Distribution, setup


class WithKernels(Distribution):
    """A wheel with libraries in it is no pure one."""

    def has_ext_modules(self) -> bool:
        """Whether there are libraries."""
        return any((Path(__file__).parent / "jaxserve" / "native" / "lib").glob("*.so"))


setup(distclass=WithKernels)
