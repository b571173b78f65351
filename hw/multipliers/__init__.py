"""Gate-level multipliers: families, one a file, and the catalogue of design points."""

from .catalogue import CATALOGUE as CATALOGUE
from .catalogue import CIRCUITS as CIRCUITS
from .catalogue import FAMILIES as FAMILIES
from .catalogue import MultiplierName as MultiplierName
from .catalogue import build_multiplier as build_multiplier
from .catalogue import multiplier_shape as multiplier_shape
from .catalogue import parse_multiplier_name as parse_multiplier_name
from .multiplier import Family as Family
from .multiplier import Multiplier as Multiplier
from .multiplier import MultiplierSignature as MultiplierSignature
from .multiplier import Parameter as Parameter
from .multiplier import Shape as Shape
from .saved import find_multiplier as find_multiplier
from .saved import load_multiplier as load_multiplier
from .saved import named_by_digest as named_by_digest
from .saved import parse_saved_name as parse_saved_name
from .saved import save_multiplier as save_multiplier
