"""The images of products as the page shows them: JPEG, in a few sizes, the last ones kept in memory."""

from io import BytesIO

from PIL import Image

from zoo.errors import UserError
from zoo.tasks.retrieval.search.contracts import Found
from zoo.tasks.retrieval.search.images import ProductImages
from zoo.tasks.retrieval.search.server.errors import not_found
from zoo.tasks.retrieval.search.server.limits import Limits
from zoo.tasks.retrieval.search.server.recent import Recent
from zoo.tasks.retrieval.search.server.uploads import decode_within

SIZES = (160, 320, 640)  # the longest sides of what is made smaller, in pixels


class JpegImages:
    """The images of products, encoded as JPEG.

    Args:
        images: The products' images.
        limits: How many pixels may be decoded, and how many bytes are kept.
    """

    def __init__(self, images: ProductImages, limits: Limits) -> None:
        self._images, self._pixels = images, limits.pixels
        self._recent: Recent[tuple[str, str, int | None], bytes] = Recent(limits.cache_bytes, len)

    def stamp(self, product: Found) -> str:
        """Give what is another when the image of a product has changed.

        Raises:
            RequestError: There is no such image.
        """
        try:
            return self._images.stamp(product.image)
        except UserError:
            raise not_found("id", product.id) from None

    def read(self, product: Found, size: int | None) -> bytes:
        """Give the image of a product.

        Args:
            product: The product.
            size: The longest side in pixels, of which the next larger of ``SIZES`` is taken; None: as it is.

        Raises:
            RequestError: There is no such image, or it cannot be decoded.
        """
        side = None if size is None else next((each for each in SIZES if each >= size), SIZES[-1])
        key = (product.image, self.stamp(product), side)
        kept = self._recent.get(key)
        if kept is None:
            try:
                kept = self._encode(self._images.read(product.image), side)
            except UserError:
                raise not_found("id", product.id) from None
            self._recent.put(key, kept)
        return kept

    def _encode(self, data: bytes, side: int | None) -> bytes:
        if side is None and data.startswith(b"\xff\xd8\xff"):
            return data
        image = Image.fromarray(decode_within(data, self._pixels))
        if side is not None:
            image.thumbnail((side, side))
        encoded = BytesIO()
        image.save(encoded, "JPEG", quality=88)
        return encoded.getvalue()
