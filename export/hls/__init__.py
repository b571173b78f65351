"""Multipliers as C++ for high-level synthesis: functors for hls4ml, and how FINN takes them."""

from .header import HlsMultiplier as HlsMultiplier
from .header import hls_files as hls_files
from .header import product_header as product_header
