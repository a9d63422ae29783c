"""``python -m zoo bench NAME``: how fast it is beside the originals, as ratios in one run."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.core.command import CommandParser

EXPLANATION = (
    "Each row is a ratio of rates: the contenders take turns, block by block, in one run, and the medians of the blocks"
    " are divided. The peers are installed by pip install -e '.[parity]'."
)


def main(argv: list[str]) -> int:
    """Run one bench.

    Args:
        argv: The words after ``python -m zoo bench``: which one, then its options.

    Returns:
        0.

    Raises:
        UserError: A peer's package is missing, or the output cannot be written.
    """
    from zoo.core.command import CommandParser

    parser = CommandParser(
        prog="python -m zoo bench", description=f"Measure speed against the originals. {EXPLANATION}"
    )
    commands = parser.add_subcommands(dest="bench", title="benches", required=True)
    commands.add_subcommand("data", data_parser(), help="the training loader and cn-clip's; the indexing of a TSV")
    commands.add_subcommand("eval", eval_parser(), help="the exact ranking and the bare matrix product, faiss, cn-clip")
    commands.add_subcommand("step", step_parser(), help="a ViT-B/16 training step and those of cn-clip and open_clip")
    commands.add_subcommand("score", score_parser(), help="scores of pictures and torch-fidelity's; reading pictures")
    commands.add_subcommand("sample", sample_parser(), help="drawing pictures and diffusers' own pipeline")
    commands.add_subcommand("caption", caption_parser(), help="scores of captions and pycocoevalcap's")
    commands.add_subcommand("memory", memory_parser(), help="the peak memory of a step, in chunks and kept whole")
    options = parser.parse_args(argv)
    chosen = options[options.bench].as_dict()
    counts = ("blocks", "pictures", "queries", "steps", "batch_size", "index_megabytes", "rows", "width", "references")
    for name in (*counts, "chunk_size"):
        if name in chosen and chosen[name] < 1:
            parser.error(f"--{name} is {chosen[name]}: give 1 or more")
    import_module(f"zoo.commands.bench_{options.bench}").run(**chosen)
    return 0


def data_parser() -> "CommandParser":
    """The options of ``bench data``."""
    parser = _parser(
        "Pairs a second on one core: what our training loader hands over, tokens included, and what cn-clip's LMDB"
        " loader does, from the same JPEGs of 224 px in MUGE's TSV, in batches of 128, one process, one thread."
        " Then the indexing of a TSV. About three minutes."
    )
    parser.add_argument("--pictures", type=int, default=1024, help="Pictures, each with one query: pairs of a block.")
    parser.add_argument("--index_megabytes", type=int, default=1024, help="Size of the TSV to index, 10^6 bytes.")
    return parser


def eval_parser() -> "CommandParser":
    """The options of ``bench eval``."""
    parser = _parser(
        "Queries a second of the exact evaluation, in fp32 and 512 dimensions: the ten best pictures, and the rank of"
        " the first true one, against the matrix product alone, faiss and cn-clip's published loop. About a minute."
    )
    parser.add_argument("--queries", type=int, default=5000, help="Queries.")
    parser.add_argument("--pictures", type=int, default=30000, help="Pictures of the gallery, at least 11.")
    return parser


def step_parser() -> "CommandParser":
    """The options of ``bench step``."""
    parser = _parser(
        "Samples a second of a training step of ViT-B/16 and RoBERTa base at 224 px: forward, loss, backward, AdamW;"
        " against cn-clip's and open_clip's models. Then what Lightning's loop costs over a bare one. About five"
        " minutes on two cores."
    )
    parser.add_argument("--batch_size", type=int, default=16, help="Pairs of a step.")
    parser.add_argument("--steps", type=int, default=1, help="Steps of a block that are timed.")
    _add_precision(parser)
    parser.add_argument(
        "--task",
        choices=["retrieval", "t2i"],
        default="retrieval",
        help="t2i: only the loop, of the diffusion generator of experiments/diffusion_demo.yaml; --layers is not its.",
    )
    parser.add_argument(
        "--layers", type=int, default=12, help="Transformer layers of all towers, 1 to 12: fewer for a quick look."
    )
    return parser


def score_parser() -> "CommandParser":
    """The options of ``bench score``."""
    parser = _parser(
        "Scores a second from ready features, the Fréchet and the kernel distance, against torch-fidelity; their peak"
        " memory. Then pictures a second from a TSV of PNGs through Inception, against Inception alone. About four"
        " minutes on two cores."
    )
    parser.add_argument("--rows", type=int, default=5000, help="Pictures of a side, more than --width.")
    parser.add_argument("--width", type=int, default=2048, help="Dimensions of the features.")
    parser.add_argument("--pictures", type=int, default=96, help="Pictures that Inception sees in a block.")
    return parser


def sample_parser() -> "CommandParser":
    """The options of ``bench sample``."""
    parser = _parser(
        "Pictures a second of a diffusion generator, text tower, noise and rounding included, against diffusers' own"
        " pipeline around the same network, at equal steps and guidance. Then codes a second of an autoregressive"
        " generator, against the bare products with its weight matrices. About two minutes on two cores."
    )
    parser.add_argument("--pictures", type=int, default=32, help="Pictures of a block, drawn together.")
    parser.add_argument("--steps", type=int, default=20, help="Steps of the solver.")
    _add_precision(parser)
    return parser


def caption_parser() -> "CommandParser":
    """The options of ``bench caption``."""
    parser = _parser(
        "Captions a second of CIDEr-D, BLEU and ROUGE-L, references included, against pycocoevalcap, from the same"
        " tokens; then of captions scored again, the references kept. About two minutes."
    )
    parser.add_argument("--pictures", type=int, default=5000, help="Pictures, each with one caption.")
    parser.add_argument("--references", type=int, default=10, help="References of each picture.")
    return parser


def memory_parser() -> "CommandParser":
    """The options of ``bench memory``."""
    parser = _parser(
        "Peak memory of a contrastive step of ViT-S/16 at 64 px and RBT3, its towers encoding some pairs at a time"
        " (model.chunk_size), against the whole batch kept; as pairs a gigabyte. About seven minutes on two cores."
    )
    parser.set_defaults(blocks=1)  # memory hardly varies
    parser.add_argument(
        "--batch_sizes", type=list[int], default=[64, 256, 1024, 4096], help="Pairs of a step, as [64, 256]."
    )
    parser.add_argument("--chunk_size", type=int, default=64, help="Pairs that the towers encode at a time.")
    parser.add_argument("--kept", type=int, default=1024, help="The largest batch that is also trained whole.")
    return parser


def _add_precision(parser: "CommandParser") -> None:
    parser.add_argument(
        "--precision",
        choices=["auto", "bf16-mixed", "32-true"],
        default="auto",
        help="Of all contenders; auto: bf16-mixed where the processor computes in bfloat16.",
    )


def _parser(description: str) -> "CommandParser":
    from zoo.core.command import CommandParser

    parser = CommandParser(description=f"{description} {EXPLANATION}")
    parser.add_argument("--blocks", type=int, default=5, help="Blocks of each contender.")
    parser.add_argument("--output", type=str, default=None, help="Also write rows and protocol to this JSON file.")
    return parser
