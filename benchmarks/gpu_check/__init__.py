"""Is what a GPU computes right? Each question is a line: the answer, and whether it is the right one.

    python -m benchmarks.gpu_check --device gpu --out FILE.md             two minutes
    python -m benchmarks.gpu_check --device cpu                           the questions that a CPU can be asked

Fast paths, layers and networks are compared with the readable operations in float64 on the CPU, on the same inputs. An
error is ||got - expected|| / ||expected||, and right if it is small, or not much larger than that of the readable
operations in the same precision. A recorded step is compared with the same step launched kernel by kernel.

Questions are asked in groups, each in its own process: an error that leaves the GPU unusable ends one process, a new
one goes on with the next question. The file is written after every answer.
"""
