"""Stand-alone, with onnxruntime and numpy alone: MODEL INPUT.npy LOGITS.npy, compared bit for bit.

Every optimisation level with 1 and 2 threads. Prints the version and the number of sessions.
"""

import sys

import numpy as np
import onnxruntime


def main(model: str, images: str, logits: str) -> None:
    given, expected = np.load(images), np.load(logits)
    levels = onnxruntime.GraphOptimizationLevel
    names = sorted(name for name in dir(levels) if name.startswith("ORT_"))
    count = 0
    for name in names:
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = getattr(levels, name)
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
            found = session.run(None, {session.get_inputs()[0].name: given})[0]
            assert found.dtype == expected.dtype, (name, threads, found.dtype)
            assert np.array_equal(found, expected), (name, threads)
            count += 1
    print(onnxruntime.__version__, count)


if __name__ == "__main__":
    main(*sys.argv[1:])
