"""What the scripts of this folder share."""
import os
import sys
import time


def blas():
    """The library behind PyTorch's matrix products. The reference BLAS, which Debian installs where nobody chose, is tens of times slower than what
    people run PyTorch on: it is refused."""
    with open("/proc/self/maps") as maps:
        found = {os.path.basename(os.path.realpath(line.split()[-1])) for line in maps if "blas" in line or "mkl" in line}
    real = sorted(name for name in found if not name.startswith(("libblas.so", "libcblas.so", "liblapack.so")))
    if found and not real:
        sys.exit("PyTorch runs on the reference BLAS here, which is no peer: install OpenBLAS (Debian: libopenblas0-openmp)")
    return ", ".join(real) or "its own BLAS"


def median_ms(functions, least=7, seconds=1.0):
    """Times the functions in turn, so that a busy machine slows both alike."""
    times = [[] for _ in functions]
    for f in functions:
        f()
    start = time.perf_counter()
    while len(times[0]) < least or (time.perf_counter() - start < seconds and len(times[0]) < 2000):
        for f, t in zip(functions, times):
            before = time.perf_counter()
            f()
            t.append(1e3 * (time.perf_counter() - before))
    return [sorted(t)[len(t) // 2] for t in times]


if __name__ == "__main__":  # can PyTorch be timed here?
    import torch

    print(f"PyTorch {torch.__version__} on {blas()}")
