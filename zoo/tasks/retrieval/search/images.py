"""The images of products, by what the catalogue calls them: files below a folder, or rows of MUGE's TSV files."""

from functools import cache
from pathlib import Path, PurePosixPath

from zoo.data.tsv import ImageTsv
from zoo.errors import UserError

OF_TSV = ".tsv#"  # stands between a TSV's name and the id of an image in it


class ProductImages:
    """Images below a folder.

    Args:
        root: The folder.

    Raises:
        UserError: There is no such folder.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(
                f"--images {root} is {'a file' if self.root.exists() else 'not there'}: give the folder that the"
                " products' images lie below",
                argument="--images",
                value=str(root),
                valid="a folder",
            )
        self._tsv = cache(lambda name: ImageTsv(self.root / name))

    def read(self, image: str) -> bytes:
        """Read an encoded image.

        Args:
            image: Its path below the folder, or ``PATH.tsv#ID``.

        Raises:
            UserError: The path leaves the folder, or there is no such image.
        """
        path, id_ = _parts(image)
        if id_ is not None:
            tsv = self._tsv(path)
            return tsv[tsv.row_of(int(id_))]
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise UserError(f"{image}: {error.strerror}", argument="image", value=image) from None

    def stamp(self, image: str) -> str:
        """Give what is another when the file of an image has changed.

        Raises:
            UserError: As ``read``.
        """
        path, _ = _parts(image)
        try:
            status = (self.root / path).stat()
        except OSError as error:
            raise UserError(f"{image}: {error.strerror}", argument="image", value=image) from None
        return f"{status.st_size}-{status.st_mtime_ns}"


def _parts(image: str) -> tuple[str, str | None]:
    """Split an image's name into the path of its file and its id there, if any."""
    name, mark, id_ = image.rpartition(OF_TSV)
    path = f"{name}.tsv" if mark else image
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path or not path:
        raise UserError(f"{image!r}: the path leaves the folder of images", argument="image", value=image)
    if mark and not (id_.isascii() and id_.isdecimal()):
        raise UserError(f"{image!r}: {id_!r} is no image's id", argument="image", value=image)
    return path, id_ if mark else None
