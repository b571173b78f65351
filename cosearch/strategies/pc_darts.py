"""PC-DARTS (Xu et al., ICLR 2020): first-order DARTS on a part of the channels, edges weighed.

What is different is the supernet's form: operations see one channel in
`search.partial_channels`, and the edges of a node are weighed by the softmax of gammas, which also
multiply the strengths of edges at selection (Eq. 3). Alphas, betas and gammas rest in the first
`search.warmup_share` of the epochs, as in every strategy here.
"""

from cosearch.choices import Form
from cosearch.config import Search

from .darts import Darts

__all__ = ["PartialChannelDarts"]


class PartialChannelDarts(Darts):
    """The step is that of DARTS."""

    def __init__(self, settings: Search) -> None:
        super().__init__(settings)
        self.form = Form(settings.partial_channels, weighs_edges=True)
