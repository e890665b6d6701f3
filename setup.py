"""What pyproject.toml cannot say: the configs travel inside the wheel, and the ops are compiled.

The ops (rankseg_d2/ops/*/csrc) are compiled against the torch that is installed, so this must be
able to import it: `pip install --no-build-isolation -e .`. Whatever is missing, installing goes on;
then the ops run on their PyTorch references, and `rankseg-d2 doctor` says so. From the environment:

    TORCH_CUDA_ARCH_LIST    build the CUDA kernels for these GPUs, not for those that are visible,
                            or where none is, for CUDA_ARCHS
    FORCE_CUDA              0: build no CUDA kernels; 1: end with an error if they cannot be built
    MAX_JOBS                compile so many files at once
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

OPS = Path("rankseg_d2/ops")
CSRC = OPS / "ms_deform_attn/csrc"
CUDA_ARCHS = ("80", "86", "89", "90", "100", "120")  # those of them that nvcc knows
AGAIN = "pip install -v --no-build-isolation -e ."


def ops() -> dict:
    """The arguments of setup() that build the compiled ops; none where that is impossible."""
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        go_without(f"no ops are compiled, because torch does not import here ({error}): {AGAIN}")
        return {}
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        go_without(f"no ops are compiled, because there is no C++ compiler ({compiler})")
        return {}

    class Build(cpp_extension.BuildExtension):
        """Goes on without the CUDA kernels, or without any, if they cannot be compiled."""

        def run(self):
            try:
                super().run()
            except Exception as error:
                if forced():
                    raise
                say(f"no ops are compiled, because the build failed ({error}); to see why: {AGAIN}")
                self.extensions.clear()

        def build_extensions(self):
            try:
                super().build_extensions()
            except Exception as error:
                if not with_cuda or forced():
                    raise
                say(f"no CUDA kernels are compiled, because that failed ({error})")
                vars(self.extensions[0]).update(vars(extension(cpp_extension, with_cuda=False)))
                super().build_extensions()

    reason = why_no_cuda(torch, cpp_extension)
    with_cuda = reason is None
    if not with_cuda:
        go_without(f"no CUDA kernels are compiled: {reason}")
    archs = [] if not with_cuda or torch.cuda.is_available() else default_archs(cpp_extension)
    return {
        "ext_modules": [extension(cpp_extension, with_cuda, archs)],
        # Nothing in it depends on the version of Python: it is called _C.so for all.
        "cmdclass": {"build_ext": Build.with_options(no_python_abi_suffix=True)},
    }


def extension(cpp_extension, with_cuda: bool, nvcc_flags=()):
    others = [OPS / "rle/csrc/rle.cpp", OPS / "semantic/csrc/semantic.cpp"]
    sources = [CSRC / "ops.cpp", *sorted(CSRC.glob("cpu/*.cpp")), *others]
    kind = cpp_extension.CppExtension
    if with_cuda:
        sources += sorted(CSRC.glob("cuda/*.cu"))
        kind = cpp_extension.CUDAExtension
    openmp = ["-fopenmp"] if sys.platform == "linux" else []  # elsewhere: one thread
    built = kind(
        "rankseg_d2._C",
        [str(source) for source in sources],
        depends=[str(header) for header in sorted(CSRC.rglob("*.*h"))],
        extra_compile_args={"cxx": ["-O3", "-g0", *openmp], "nvcc": ["-O3", *nvcc_flags]},
        extra_link_args=openmp,
    )
    # Torch has loaded its own; that of the toolkit may be elsewhere than torch thinks.
    built.libraries = [name for name in built.libraries if name != "cudart"]
    return built


def why_no_cuda(torch, cpp_extension) -> str | None:
    if os.environ.get("FORCE_CUDA") == "0":
        return "FORCE_CUDA is 0"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if cpp_extension.CUDA_HOME is None or not nvcc(cpp_extension).exists():
        return "no CUDA toolkit (nvcc) is found; CUDA_HOME can name its folder"
    return None


def default_archs(cpp_extension) -> list[str]:
    """nvcc's flags where no GPU is visible: code for each known kind, and PTX for later ones."""
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return []  # torch reads it
    command = [nvcc(cpp_extension), "--list-gpu-code"]
    known = subprocess.run(command, capture_output=True, text=True).stdout.split()
    archs = [arch for arch in CUDA_ARCHS if f"sm_{arch}" in known] or ["80"]
    flags = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    return [*flags, f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"]


def nvcc(cpp_extension) -> Path:
    return Path(cpp_extension.CUDA_HOME) / "bin" / "nvcc"


def forced() -> bool:
    return os.environ.get("FORCE_CUDA") == "1"


def go_without(text: str) -> None:
    say(text)
    if forced():
        sys.exit("FORCE_CUDA is 1")


def say(text: str) -> None:
    sys.stderr.write(f"rankseg_d2: {text}\n")


CONFIGS = "rankseg_d2.configs"  # each folder of it counts as a package: setuptools wants them named
setup(
    packages=[
        *find_packages(include=["rankseg_d2", "rankseg_d2.*"]),
        CONFIGS,
        *(f"{CONFIGS}.{folder}" for folder in find_namespace_packages("configs")),
    ],
    package_dir={CONFIGS: "configs"},
    package_data={
        "rankseg_d2": ["**/*.json", "**/*.html", "**/*.css", "**/*.js"],
        CONFIGS: ["**/*.yaml"],
    },
    **ops(),
)
