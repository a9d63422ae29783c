"""How true captions are: the attributes that they say against those that their images show."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.data.attributes import Vocabulary, said_in


class CaptionAttributes(Metric):
    """Precision, recall and contradiction of what captions say of their images, in percent; no model is needed.

    A word counts where it names a value of an attribute, the longest word at each place. It is right where the image
    shows that value, and contradicts it where the image shows another one of the same kind.

    - ``precision``: words that are right, of all that count.
    - ``recall``: the images' values that are said, but for those that nobody is expected to say.
    - ``contradiction``: captions with a word that contradicts their image.

    ``update(captions, attributes)`` takes B captions and what their images show, ``{kind: value}`` each. The numbers
    are those of the whole set on any number of processes; one of nothing is NaN.

    Args:
        vocabulary: The words for the values.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        names = ("words", "right", "shown", "said", "captions", "contradicting")
        self.names = names
        self.add_state("counts", torch.zeros(len(names), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, captions: Sequence[str], attributes: Sequence[Mapping[str, str]]) -> None:
        """Take in captions, and what their images show."""
        counts = [0] * len(self.names)
        for caption, shown in zip(captions, attributes, strict=True):
            said = said_in(self.vocabulary.mentions(caption), shown)
            wanted = set(shown.values()) - self.vocabulary.unsaid
            its = (said.words, said.right, len(wanted), len(wanted & said.values), 1, said.contradicts)
            counts = [count + own for count, own in zip(counts, its, strict=True)]
        self.counts += torch.tensor(counts, device=self.counts.device)

    def compute(self) -> dict[str, Tensor]:
        """Give the three numbers, in percent."""
        words, right, shown, said, captions, contradicting = self.counts.double()
        return {
            "precision": 100 * right / words,
            "recall": 100 * said / shown,
            "contradiction": 100 * contradicting / captions,
        }
