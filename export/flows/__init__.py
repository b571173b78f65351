"""What a team runs on the Verilog of a bundle: a Makefile, scripts, constraints, a FuseSoC core.

The scripts are files of this package, `files/`, and written as they are, but for the lists of
modules and benches. They need nothing of this project.
"""

from .flow import Flow as Flow
from .flow import FlowModule as FlowModule
from .flow import flow_files as flow_files
