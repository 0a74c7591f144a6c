"""Build a folder in which the real CuPy runs on the fake driver: python -m tests.fake_cuda.build FOLDER

FOLDER then holds ``venv``, a virtual environment with CuPy, NVRTC and what nanogan and its tests need, ``lib``, the
driver and its cuBLAS, and ``build``, what they were made of. Takes a minute; again, a few seconds: only the driver is
compiled anew. For Linux on x86-64; needs g++, nm, Python's headers and its venv, and the package index.

CuPy's module ``cupy_backends.cuda.api.runtime`` has NVIDIA's CUDA runtime inside, which asks for a real driver. It is
compiled again from CuPy's own source, without; all else of CuPy stays as it was installed.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

HERE = Path(__file__).parent
CUPY, CUDA = "14.2.0", 13000
PACKAGES = (
    f"cupy-cuda13x=={CUPY}",
    *("nvidia-cuda-nvrtc==13.0.88", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-crt==13.0.88"),
    *("nvidia-cuda-profiler-api==13.0.85", "cython==3.2.4"),  # what the runtime module is compiled with
    *("ml_dtypes>=0.5", "numpy>=2.0", "pillow>=10.1", "safetensors>=0.4.3", "threadpoolctl>=3.1", "tqdm>=4.60"),
    *("pytest>=8", "hypothesis>=6.100"),
)
CYTHON_OPTIONS = {
    "CUPY_CUDA_VERSION": CUDA,
    "CUPY_HIP_VERSION": 0,
    "CUPY_USE_CUDA_PYTHON": False,
    "CUPY_CANN_VERSION": 0,
}
COMPILE = ("g++", "-O1", "-std=c++17", "-fPIC")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to build; it is made if it does not exist")
    folder = parser.parse_args(arguments).folder.resolve()
    check_machine()
    for name in ("build", "lib"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    python = make_environment(folder / "venv")
    headers, packages = (Path(path) for path in paths_of(python))
    build, lib = folder / "build", folder / "lib"

    runtime = build / "runtime.o"
    if not runtime.exists():
        compile_runtime(python, build, [headers, packages / "nvidia/cu13/include"], runtime)
    make_driver(runtime, build, lib, packages / "nvidia/cu13/include")
    make_cublas(next(packages.glob("cupy_backends/cuda/libs/cublas.*.so")), build, lib)
    module = next(packages.glob("cupy_backends/cuda/api/runtime.*.so"))
    link(module, [runtime], lib, "-l:libcuda.so.1")
    print(f"built: {folder}")


def check_machine():
    """Exit with one sentence if something that is needed is missing."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        sys.exit(f"the fake CUDA driver expected Linux on x86_64, got {sys.platform} on {platform.machine()}")
    for program, package in (("g++", "g++"), ("nm", "binutils")):
        if shutil.which(program) is None:
            sys.exit(f"{program} was not found: install it first, for instance with apt-get install {package}")
    headers = Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").exists():
        sys.exit(f"Python's headers were not found in {headers}: apt-get install python3-dev, or use another Python")


def run(*command, cwd=None, env=None):
    """Run a command and return what it prints; exit with one sentence if it fails."""
    result = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["it said nothing"]
        error = next((line for line in lines if "error" in line.lower()), lines[-1])
        sys.exit(f"{' '.join(Path(str(part)).name for part in command[:4])} ... failed: {error.strip()}")
    return result.stdout


def make_environment(folder):
    """Make the virtual environment and return its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        try:
            venv.create(folder, with_pip=True)
        except subprocess.CalledProcessError:
            sys.exit(
                "a virtual environment could not be made: install Python's venv first (apt-get install python3-venv)"
            )
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *PACKAGES)
    return python


def paths_of(python):
    """Return the folders of Python's headers and of the packages of ``python``."""
    program = "import sysconfig; paths = sysconfig.get_paths(); print(paths['include']); print(paths['purelib'])"
    return run(python, "-c", program).splitlines()


def compile_runtime(python, build, headers, target):
    """Compile CuPy's module ``runtime`` from CuPy's source into ``target``, an object file."""
    source = build / f"cupy-{CUPY}"
    if not source.exists():
        download = ("download", "--quiet", "--no-deps", "--no-binary", "cupy", "--dest", build, f"cupy=={CUPY}")
        env = os.environ | {"CUPY_INSTALL_USE_STUB": "1"}  # or its setup.py looks for CUDA
        run(python, "-m", "pip", "--disable-pip-version-check", *download, env=env)
        with tarfile.open(build / f"cupy-{CUPY}.tar.gz") as archive:
            archive.extractall(build, [m for m in archive if m.name.startswith(f"cupy-{CUPY}/cupy_backends/")])
    options = [part for name, value in CYTHON_OPTIONS.items() for part in ("-E", f"{name}={value}")]
    name = "cupy_backends.cuda.api.runtime"
    pyx = "cupy_backends/cuda/api/runtime.pyx"
    run(python.parent / "cython", "--cplus", "--module-name", name, *options, pyx, "-o", "runtime.cpp", cwd=source)
    headers = [
        *headers,
        "cupy_backends/cuda/api",
        "cupy_backends",
        ".",
    ]  # generated code lies where its includes do not
    run(*COMPILE, "-w", "-c", *(f"-I{path}" for path in headers), "-o", target, "runtime.cpp", cwd=source)


def make_driver(runtime, build, lib, headers):
    """Make lib/libcuda.so.1: driver.cpp, and a function that fails loudly for each that CuPy uses and it lacks."""
    run(*COMPILE, "-Wall", "-c", "-isystem", headers, "-o", build / "driver.o", HERE / "driver.cpp")
    missing = symbols(runtime, "cuda", defined=False) - symbols(build / "driver.o", "cuda", defined=True)
    stubs = [f'{name}(...) {{ fprintf(stderr, "the fake driver has no {name}\\n"); return 801; }}' for name in missing]
    lines = ["#include <cstdio>", 'extern "C" {', *(f"int {stub}" for stub in sorted(stubs)), "}"]  # 801: not supported
    (build / "stubs.cpp").write_text("\n".join(lines) + "\n", encoding="utf-8")
    link(lib / "libcuda.so.1", [build / "driver.o", build / "stubs.cpp"], lib)


def make_cublas(module, build, lib):
    """Make lib/libcublas.so.13: cublas.cpp, and a function for each that CuPy's ``module`` uses and it lacks."""
    written = (HERE / "cublas.cpp").read_text(encoding="utf-8")
    missing = symbols(module, "cublas", defined=False) - set(re.findall(r"API int (\w+)", written))
    lines = [f'API int {name}(Handle* handle, ...) {{ return other("{name}", handle); }}' for name in sorted(missing)]
    (build / "cublas.cpp").write_text(written + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
    # CuPy asks for versioned symbols; libcublasLt is only looked for
    (build / "version").write_text("libcublas.so.13 { global: *; };\n", encoding="utf-8")
    script = f"-Wl,--version-script={build / 'version'}"
    link(lib / "libcublas.so.13", [build / "cublas.cpp"], lib, "-l:libcuda.so.1", script)
    (build / "nothing.cpp").write_text("int nothing;\n", encoding="utf-8")
    link(lib / "libcublasLt.so.13", [build / "nothing.cpp"], lib)


def link(target, sources, lib, *options):
    """Make a shared library under another name first: a process may have the old one open."""
    new = target.with_name(target.name + ".new")
    name, search = f"-Wl,-soname,{target.name}", f"-Wl,-rpath,{lib}"
    run(*COMPILE, "-shared", "-Wall", name, search, f"-L{lib}", "-o", new, *sources, *options)
    new.replace(target)


def symbols(file, prefix, *, defined):
    """Return the names that begin with ``prefix`` and are defined in an object or a library, or missing from it."""
    dynamic = ["--dynamic"] if ".so" in file.suffixes else []
    output = run("nm", *dynamic, "--defined-only" if defined else "--undefined-only", file)
    names = {line.split()[-1].partition("@")[0] for line in output.splitlines() if line.split()}
    return {name for name in names if name.startswith(prefix)}


if __name__ == "__main__":
    main()
