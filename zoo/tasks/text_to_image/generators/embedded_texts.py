"""What frozen text encoders made of texts, kept."""

from zoo.tasks.text_to_image.generators.families import Embedded


class TextCache:
    """What networks are told of texts, kept in the host's memory until that is full: text encoders are frozen.

    Args:
        mebibytes: Most memory that it takes.
    """

    def __init__(self, mebibytes: int) -> None:
        self.bytes = mebibytes * 2**20
        self.empty()

    def empty(self) -> None:
        """Forget everything."""
        self.room = self.bytes
        self.kept: dict[str, Embedded] = {}

    def keep(self, text: str, embedded: Embedded) -> None:
        """Keep what a text was embedded to, where there is room."""
        size = sum(each.nbytes for each in embedded)
        if size <= self.room and text not in self.kept:
            self.room -= size
            self.kept[text] = tuple(each.cpu() for each in embedded)
