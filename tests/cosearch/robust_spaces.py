"""The space S1 of RobustDARTS: the two operations of each edge, in order.

Source: Zela et al. (ICLR 2020), section 3; the lists are those of the authors' repository,
automl/RobustDARTS, src/spaces.py.
"""

SHORT = {
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}
NORMAL = (
    "skip dil3, skip dil5, "
    "skip dil5, skip sep3, skip dil3, "
    "max skip, skip sep3, skip sep3, skip dil3, "
    "skip sep3, max skip, skip dil3, dil3 dil5, dil3 dil5"
)
REDUCTION = (
    "max avg, max dil3, "
    "max avg, max avg, skip dil5, "
    "max avg, max sep3, skip dil3, skip dil5, "
    "max avg, max avg, skip dil5, skip dil5, skip dil5"
)
S1_OPERATIONS = tuple(SHORT.values())
S1_BY_EDGE = tuple(
    f"{cell_type}.{edge}: {' '.join(SHORT[name] for name in pair.split())}"
    for cell_type, pairs in (("normal", NORMAL), ("reduction", REDUCTION))
    for edge, pair in enumerate(pairs.split(", "))
)
