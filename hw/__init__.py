"""Gates: arithmetic circuits as netlists, their simulation, synthesis, energy, delay and area."""

from .errors import InputError as InputError
from .errors import unknown_name as unknown_name
from .files import read_json as read_json
from .files import write_bytes as write_bytes
from .files import write_json as write_json
from .files import write_text as write_text
