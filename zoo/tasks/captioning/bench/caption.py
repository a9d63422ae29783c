"""``bench caption``: BLEU, ROUGE-L and CIDEr-D of captions against pycocoevalcap's, on the same tokens."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from zoo.core.bench.harness import Row, interleave, protocol, rate, report, require, run_bench

if TYPE_CHECKING:
    import numpy as np

WANTED = 2.5
WANTED_SECONDS = 1.5  # for scoring 5,000 captions again
CHARACTERS, WORDS, TOPIC_WORDS = 3000, 20_000, 6
ON_TOPIC = 0.4  # words of a slogan that are of its image's
LENGTHS = (10, 20)  # tokens

Tokens = list[str]


def main(argv: list[str]) -> int:
    """Run ``bench caption``."""
    return run_bench("caption", measure, argv)


def measure(*, images: int = 5000, references: int = 10, blocks: int = 5, output: str | None = None) -> None:
    """Measure the captions a second of CIDEr-D, BLEU and ROUGE-L, references included, against pycocoevalcap.

    From the same tokens; then of captions scored again, the references kept. About two minutes.

    Args:
        images: Images, each with one caption.
        references: References of each image.
        blocks: Blocks of each contender.
        output: JSON file that rows and protocol are also written to.

    Raises:
        UserError: pycocoevalcap is not installed.
    """
    require({"pycocoevalcap": "pycocoevalcap"}, bench="bench caption")
    from zoo.tasks.captioning.metrics.ngrams import CaptionReferences

    texts, captions = slogans(images, references)
    kept = CaptionReferences(texts)
    contenders = {
        "ours": rate(lambda: len(CaptionReferences(texts).score(captions).captions["cider"])),
        "pycocoevalcap": rate(peer(texts, captions)),
        "references kept": rate(lambda: len(kept.score(captions).captions["cider"])),
    }
    rates = interleave(contenders, blocks=blocks, what="bench caption")
    rows = [
        Row("captions scored", "captions/s", rates, "ours", "pycocoevalcap", WANTED),
        Row("captions scored again", "captions/s", rates, "references kept", None, 5000 / WANTED_SECONDS),
    ]
    metadata = protocol(
        packages=("pycocoevalcap", "numpy"),
        texts=f"{images} × {references} references and a caption each, of {LENGTHS[0]} to {LENGTHS[1]} Chinese"
        f" characters, a token each; {WORDS} words sampled by Zipf's law, {ON_TOPIC:.0%} of them of the image's own"
        f" {TOPIC_WORDS}; seed 0",
        scores="BLEU-1 to 4, ROUGE-L and CIDEr-D, of the set and of each image",
        peer="its classes Bleu, Rouge and Cider, on strings joined before; no Java",
        again="what depends on the references alone is kept, as from one evaluation of a training to the next",
        threads="one; neither uses more",
        blocks=f"{blocks} of all captions",
    )
    report("caption", rows, metadata, output=output)


def slogans(images: int, references: int) -> tuple[list[list[Tokens]], list[Tokens]]:
    """Make up references and a caption of each image, as tokens: slogans of MUGE's lengths that share words."""
    import numpy as np

    generator = np.random.default_rng(0)
    characters = np.array([chr(0x4E00 + index) for index in range(CHARACTERS)])
    spelled = generator.choice(characters, (WORDS, 3), p=_zipf(CHARACTERS, 5))
    lengths = generator.choice([1, 2, 2, 2, 3], WORDS)
    words = ["".join(letters[:length]) for letters, length in zip(spelled, lengths, strict=True)]
    common = _zipf(WORDS, 20)
    texts = []
    for _ in range(images):
        topic = generator.choice(WORDS, TOPIC_WORDS, p=common)
        chosen = generator.choice(WORDS, (references + 1, LENGTHS[1]), p=common)
        chosen = np.where(generator.random(chosen.shape) < ON_TOPIC, generator.choice(topic, chosen.shape), chosen)
        sizes = generator.integers(LENGTHS[0], LENGTHS[1] + 1, references + 1)
        texts.append([list("".join(words[word] for word in row))[:n] for row, n in zip(chosen, sizes, strict=True)])
    return [own[:-1] for own in texts], [own[-1] for own in texts]


def peer(texts: list[list[Tokens]], captions: list[Tokens]) -> Callable[[], int]:
    """Prepare pycocoevalcap's scores of everything; the call computes them and returns the captions."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    references = {row: [" ".join(tokens) for tokens in own] for row, own in enumerate(texts)}
    candidates = {row: [" ".join(tokens)] for row, tokens in enumerate(captions)}

    def score() -> int:
        Bleu(4).compute_score(references, candidates, verbose=0)
        Rouge().compute_score(references, candidates)
        Cider().compute_score(references, candidates)
        return len(candidates)

    return score


def _zipf(count: int, shift: int) -> "np.ndarray":
    """``[count]``: probabilities that fall as one over the rank."""
    import numpy as np

    weights = 1 / (np.arange(count) + shift)
    return weights / weights.sum()
