"""Why CuPy cannot be used, in one sentence with the remedy. Only needed when something is wrong."""

import contextlib
import os

INSTALL_CUPY = 'pip install "cupy-cuda13x[ctk]" (NVIDIA driver 580 or newer) or pip install "cupy-cuda12x[ctk]"'
CHECK_DRIVER = "check that nvidia-smi lists one, or use device cpu"
CUPY_PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")  # each overwrites the files of the others


def import_problem(error):
    """Say in one sentence why ``import cupy`` raised ``error``, and what to do."""
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
        return f"device gpu needs CuPy, which is not installed: {INSTALL_CUPY}"
    reason = reason_of(error.__cause__ or error)  # CuPy's own ImportError is a page of general advice
    return (
        several_cupys() or f"device gpu needs CuPy, which cannot be imported ({reason}): reinstall it, {INSTALL_CUPY}"
    )


def several_cupys():
    """Say in one sentence that several packages of CuPy are installed, and what to do; None if there is one."""
    from importlib import metadata  # only needed when something is wrong

    found = []
    for name in CUPY_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(metadata.distribution(name).metadata["Name"])
    if len(found) < 2:
        return None
    return (
        f"device gpu needs one CuPy, but {' and '.join(found)} are installed over each other: "
        f"pip uninstall {' '.join(found)}, then {INSTALL_CUPY}"
    )


def driver_problem(cupy):
    """Say why CuPy finds no GPU, and what to do: there is no driver, it is too old, or it sees no GPU."""
    driver, reason = None, ""
    try:
        runtime = cupy.cuda.runtime
        driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()  # 12040 means CUDA 12.4
        runtime.getDeviceCount()
    except Exception as error:
        reason = reason_of(error)
    if driver == 0:
        return (
            "CuPy is installed but finds no NVIDIA driver: install one (in a container, start it with the GPU: "
            "docker run --gpus all), or use device cpu"
        )
    if driver and "InsufficientDriver" in reason:
        older = f'pip install "cupy-cuda12x[ctk]" instead of {package_of(cupy)}, or ' if 12000 <= driver < 13000 else ""
        return (
            f"the NVIDIA driver is made for CUDA {version(driver)} and CuPy for {version(needed)}: {older}"
            "install a newer driver (CUDA 13 takes 580 or newer)"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver and "NoDevice" in reason:
        if visible is not None:
            return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset it, or name one, such as 0"
        return f"the NVIDIA driver (CUDA {version(driver)}) sees no GPU: {CHECK_DRIVER}"
    told = f" ({reason})" if driver and reason else ""
    return f"CuPy is installed but finds no NVIDIA driver or no GPU{told}; {CHECK_DRIVER}"


def use_problem(cupy, index, error):
    """Say in one sentence why a first kernel and product on GPU ``index`` raised ``error``, and what to do."""
    reason, text = reason_of(error), f"{type(error).__name__} {error}".lower()
    there = f"gpu:{index} is there, but CuPy"
    if "out of memory" in text or "alloc_failed" in text:
        return (
            f"gpu:{index} has no memory left ({reason}): end other programs that use it, which nvidia-smi lists, or "
            "use another gpu:N"
        )
    if any(sign in text for sign in ("gpu-architecture", "nokernelimage", "no_binary_for_gpu", "unsupported gpu")):
        capability = ""
        with contextlib.suppress(Exception):
            digits = cupy.cuda.Device(index).compute_capability  # "90" means 9.0
            capability = f", of compute capability {digits[:-1]}.{digits[-1]},"
        return (
            f"gpu:{index}{capability} is not served by {package_of(cupy)} ({reason}): CUDA 13 serves 7.5 and newer, "
            'pip install "cupy-cuda12x[ctk]" 5.0 and newer'
        )
    if "open source file" in text or "cuda headers" in text:
        return f'{there} does not find CUDA\'s headers ({reason}): pip install "{package_of(cupy)}[ctk]"'
    missing = any(
        sign in text for sign in ("failure finding", "cannot open shared object", "could not find", "failed to load")
    )
    for library, purpose in (
        ("nvrtc", "NVRTC, which compiles its kernels"),
        ("cublas", "cuBLAS, CUDA's matrix products"),
    ):
        if missing and library in text:
            return f'{there} does not find {purpose} ({reason}): pip install "{package_of(cupy)}[ctk]"'
    return f"{there} cannot use it ({reason}): reinstall CuPy with its CUDA libraries, {INSTALL_CUPY}"


def package_of(cupy):
    """The package of this CuPy, by the CUDA that it was built for."""
    try:
        return f"cupy-cuda{cupy.cuda.runtime.runtimeGetVersion() // 1000}x"
    except Exception:
        return "cupy-cuda13x"


def version(number):
    """13020 -> "13.2"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def reason_of(error):
    """The first line of an error's text that says something, else its type."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line[:200] for line in lines if any(map(str.isalpha, line))), type(error).__name__)
