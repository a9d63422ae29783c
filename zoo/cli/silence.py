"""What the libraries print that says nothing to a user, left out."""

import logging
import warnings

from lightning.pytorch.profilers import Profiler

# Warnings and news of the libraries that are not about anything a user did.
NOISE = (
    "does not have many workers",
    "LeafSpec",
    "isinstance.treespec",
    "is not supported by the model summary",
    "exists and is not empty",
    "smaller than the logging interval",
    "The dirpath has changed",  # of a checkpoint apart from its run
    "You're resuming from a checkpoint that ended before",  # the training sampler finds its place
    "custom batch sampler",  # the data modules own both samplers
    "It is recommended to use .*sync_dist=True",  # the metrics are equal on all processes
    "torch.distributed.nn.functional.all_gather is deprecated",  # Lightning's
    "FSDP2-wrapped module .* returned a view tensor",  # nobody changes it in place
    r"module\(s\) in eval mode at the start of training",  # what is frozen keeps still on purpose
)
CHATTER = (
    "Seed set to",
    "TPU available",
    "Loading `train_dataloader`",
    "Restoring states from",
    "Initializing distributed",
    "All distributed processes registered",
    "`weights_only` was not set",
    "💡",
    "litlogger",
)


def quiet_libraries() -> None:
    """Leave out the libraries' chatter that says nothing to a user."""
    Profiler._stage = Profiler._output_file = None  # or its destructor complains where its constructor did
    for message in NOISE:
        warnings.filterwarnings("ignore", message=f".*{message}")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(is_telling)


def is_telling(record: logging.LogRecord) -> bool:
    """Whether a record of Lightning's says something to a user."""
    return not any(words in record.getMessage() for words in CHATTER)
