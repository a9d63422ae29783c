"""Texts that several threads want embedded, in one forward pass."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread

import numpy as np

from zoo.tasks.retrieval.search.server.recent import Recent

TEXTS_A_BATCH = 32
KEPT_BYTES = 16 * 2**20  # of embeddings: of width 512, some 8,000 texts

Waiting = tuple[str, "Future[np.ndarray]"]


class TextBatcher:
    """A thread that embeds the texts of all others.

    While it computes, texts gather; then it takes all of them together. So a lone text is never kept waiting, and the
    more that come, the larger the batches are.

    Args:
        encode: Embeds B texts: ``[B, D] float32``. It is called by one thread at a time.
    """

    def __init__(self, encode: Callable[[list[str]], np.ndarray]) -> None:
        self._encode = encode
        self._waiting: SimpleQueue[Waiting | None] = SimpleQueue()
        self._recent: Recent[str, np.ndarray] = Recent(KEPT_BYTES, lambda vector: vector.nbytes)
        self._thread = Thread(target=self._run, name="text batches", daemon=True)
        self._thread.start()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts, with those that other threads wait for: ``[B, D] float32``.

        Raises:
            Exception: Whatever the encoder says of one of these texts; what it says of others' is theirs.
        """
        futures: dict[str, Future[np.ndarray]] = {text: Future() for text in texts}
        for text, future in futures.items():
            kept = self._recent.get(text)
            if kept is None:
                self._waiting.put((text, future))
            else:
                future.set_result(kept)
        for text, future in futures.items():
            self._recent.put(text, future.result())
        return np.stack([futures[text].result() for text in texts])

    def close(self) -> None:
        """End the thread, after what waits."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < TEXTS_A_BATCH and not self._waiting.empty():  # nobody else takes from it
                following = self._waiting.get()
                if following is None:
                    self._waiting.put(None)
                    break
                batch.append(following)
            self._answer(batch)

    def _answer(self, batch: Sequence[Waiting]) -> None:
        """Answer a batch; where it fails, each text by itself."""
        try:
            vectors = self._encode([text for text, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for each in batch:
                    self._answer([each])
        else:
            for (_, future), vector in zip(batch, vectors, strict=True):
                future.set_result(vector)
