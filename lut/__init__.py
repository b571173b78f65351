"""Tables: products of multipliers as LUTs, their errors and exact factors, and layers that use
them.
"""

from .approximation import approximate as approximate
from .approximation import calibrate as calibrate
from .attention import ApproxMatmul as ApproxMatmul
from .attention import Matmul as Matmul
from .candidates import Candidates as Candidates
from .factors import Factors as Factors
from .factors import JointBasis as JointBasis
from .factors import factorize as factorize
from .factors import joint_basis as joint_basis
from .functional import approx_conv2d as approx_conv2d
from .functional import approx_linear as approx_linear
from .geometry import ConvGeometry as ConvGeometry
from .layers import ApproxConv1d as ApproxConv1d
from .layers import ApproxConv2d as ApproxConv2d
from .layers import ApproxLinear as ApproxLinear
from .library import LibraryEntry as LibraryEntry
from .library import MultiplierLibrary as MultiplierLibrary
from .matmul import approx_matmul as approx_matmul
from .metrics import ErrorMetrics as ErrorMetrics
from .metrics import error_metrics as error_metrics
from .quantisation import ActivationQuantiser as ActivationQuantiser
from .quantisation import Quantisation as Quantisation
from .table import LUT as LUT
