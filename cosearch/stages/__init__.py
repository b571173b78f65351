"""The stages of the pipeline: one module each, with ``run(run_folder, progress)``."""
