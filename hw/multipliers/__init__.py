"""Gate-level multipliers: families, one a file, and the catalogue of design points."""

from .catalogue import CATALOGUE as CATALOGUE
from .catalogue import FAMILIES as FAMILIES
from .catalogue import MultiplierName as MultiplierName
from .catalogue import build_multiplier as build_multiplier
from .catalogue import parse_multiplier_name as parse_multiplier_name
from .multiplier import Family as Family
from .multiplier import Multiplier as Multiplier
from .multiplier import MultiplierSignature as MultiplierSignature
from .multiplier import Parameter as Parameter
from .multiplier import Shape as Shape
