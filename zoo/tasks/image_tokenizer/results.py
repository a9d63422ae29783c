"""The table of image tokenizers."""

from zoo.core.results import Result, ResultsTable, by_experiment, number

TITLES = (
    *("parameters", "test images", "codes per image, of", "PSNR, dB", "SSIM, %", "fd_clip", "R-precision"),
    *("real images", "codes used, %"),
)


def rows(result: Result) -> list[list[str]]:
    """One line: what is left of the test split's images."""
    protocol = result["runs"][0]["protocol"]
    cells = [f"{protocol['parameters'] / 1e6:.0f} M", f"{protocol['generated']:,}"]
    cells.append(f"{protocol['codes_per_image']:,}, {protocol['codebook']:,}")
    cells += [number(result, f"test/{name}") for name in ("psnr", "ssim")]
    cells.append(number(result, "test/fd_clip", digits=3))
    cells += [number(result, f"test/{name}") for name in ("r_precision", "r_precision_true", "codebook_usage")]
    return [cells]


RESULTS = ResultsTable("tokenizers", by_experiment(TITLES, rows), metrics=frozenset({"test/psnr"}))
