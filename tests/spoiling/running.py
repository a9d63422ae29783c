"""Runs spoiled inputs in this process, each in a folder of its own, and says what is wrong with what came of them."""

import difflib
import io
import logging
import os
import shutil
import signal
import sys
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager
from random import Random
from typing import NamedTuple

import tiny

from spoiling import configs, folders, submissions, tables

AREAS = (folders.CHECK, tables.IMPORT, submissions.RETRIEVAL, submissions.CAPTIONS, submissions.IMAGES, configs.FIT)
SECONDS = 20  # that one input may take
SHOWN = 30_000  # characters that a refusal may have, on a screen


class Failure(NamedTuple):
    """An input that was not answered as it should be."""

    area: str
    base: str
    mutator: str
    number: int
    what: str
    said: str

    @property
    def name(self):
        """How to run it again."""
        return f"{self.area}, {self.base}, {self.mutator}, --first {self.number}"


class TookTooLong(BaseException):
    """Not to be caught as an error."""


class Runner:
    """Runs inputs, numbered from 0; the same seed and number is the same input.

    Args:
        folder: Where it works.
        seed: Of what is drawn.
        areas: The names of those that are run; empty: all.
        only: The mutators that are run; empty: all.

    Attributes:
        areas: What is run.
        pairs: The names of valid inputs with their mutators, by area.
        counts: How many inputs were run, by area and what was expected of them.
    """

    def __init__(self, folder, seed, areas=(), only=()):
        self.seed = seed
        self.place = folder / "place"
        (folder / "home").mkdir(parents=True)
        root = tiny.write_muge(folder / "data")
        folders.make(tiny.write_muge(folder / "apart", apart=True))
        tables.make(root)
        matcher = tiny.write_matcher(folder / "matcher.ckpt")
        submissions.make(root, matcher)
        configs.make(root, matcher)
        for area in AREAS:
            for given in area.bases.values():
                given.files["empty"] = None
        self.environment = {
            **os.environ,
            **{"HOME": str(folder / "home"), "ZOO_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hub")},
            **{"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "COLUMNS": "200"},
        }
        for name in ("MUGE_ROOT", "ZOO_RUN", "LOCAL_RANK", "NOT_SET", "NETRC"):
            self.environment.pop(name, None)
        self.areas = [area for area in AREAS if not areas or area.name in areas]
        self.pairs = {
            area.name: [
                (base, mutator)
                for mutator in area.mutators
                if not only or mutator.name in only
                for base in mutator.bases or area.bases
            ]
            for area in self.areas
        }
        self.areas = [area for area in self.areas if self.pairs[area.name]]
        self.valid = {}  # the outcome of the valid inputs, by area and base
        self.counts = Counter()  # by area and outcome

    def run(self, count):
        """Run the first inputs; gives the failures."""
        return [failure for number in range(count) if (failure := self.run_one(number))]

    def run_one(self, number):
        """Run one input; gives the failure, if it is one."""
        area = self.area_of(number)
        random = Random(f"{self.seed} {number}")
        verdict = None
        while verdict is None:
            base, mutator = random.choice(self.pairs[area.name])
            valid = area.bases[base]
            given = valid.copy()
            verdict = mutator.spoil(given, random)
        if verdict.outcome == "same" and (area.name, base) not in self.valid:
            self.valid[area.name, base] = self._outcome_of_the_valid(area, valid)
        self._write(given)
        code, out, err, raised = self._type(given.words)
        self.counts[area.name, verdict.outcome] += 1
        what = raised or self._judge(area, base, given, verdict, code, out, err)
        if not what:
            return None
        told = "\n".join([str(given.words), *differences(valid, given), out[-1500:], err[-1500:]])
        return Failure(area.name, base, mutator.name, number, what, told)

    def area_of(self, number):
        """Areas take turns, each as often as its share says."""
        turns = [area for area in self.areas for _ in range(area.share)]
        Random(self.seed).shuffle(turns)
        return turns[number % len(turns)]

    def _outcome_of_the_valid(self, area, valid):
        self._write(valid)
        code, out, err, raised = self._type(valid.words)
        assert (code, raised) == (0, ""), f"{valid.words}: {code}\n{raised}\n{out}\n{err}"
        return area.outcome(self.place, out, err)

    def _write(self, given):
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        for name, data in given.files.items():
            path = self.place / name
            (path if data is None else path.parent).mkdir(parents=True, exist_ok=True)
            if data is not None:
                path.write_bytes(data)

    def _type(self, words):
        """Run a command line: its exit code, what it printed, and a traceback or that it hung."""
        from zoo.__main__ import main

        code, raised = None, ""
        with self._as_in_a_shell() as printed:
            try:
                with within(SECONDS):
                    code = main(list(words))
            except SystemExit as stopped:
                code = stopped.code
            except TookTooLong:
                raised = f"hangs: longer than {SECONDS} s"
            except BaseException:
                raised = traceback.format_exc()
        return code, *(stream.buffer.getvalue().decode() for stream in printed), raised

    @contextmanager
    def _as_in_a_shell(self):
        """In the folder, with an environment and streams of its own; all is put back afterwards."""
        kept, streams, folder = dict(os.environ), (sys.stdout, sys.stderr), os.getcwd()
        path, hooks = list(sys.path), (sys.excepthook, signal.getsignal(signal.SIGTERM))
        os.environ.clear()
        os.environ.update(self.environment, PWD=str(self.place))
        os.chdir(self.place)
        printed = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in streams]
        sys.stdout, sys.stderr = printed
        loggers = map(logging.getLogger, ("lightning", "lightning.pytorch", "lightning.fabric"))
        handlers = [each for logger in loggers for each in logger.handlers if type(each) is logging.StreamHandler]
        logged = [handler.stream for handler in handlers]  # set, for setStream would flush what a test has closed
        for handler in handlers:
            handler.stream = sys.stderr
        try:
            with warnings.catch_warnings():
                yield printed
        finally:
            sys.stdout, sys.stderr = streams
            for handler, stream in zip(handlers, logged, strict=True):
                handler.stream = stream
            sys.path[:] = path
            sys.excepthook = hooks[0]
            signal.signal(signal.SIGTERM, hooks[1])
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(kept)

    def _judge(self, area, base, given, verdict, code, out, err):
        """What is wrong with an answer; empty: nothing."""
        outcome, named, result = verdict
        said = area.said(out, err)
        accepted = code == 0
        if code not in (0, 1, 2):
            return f"exit code {code}"
        if "Traceback (most recent call last)" in out + err:
            return "prints a traceback"
        if outcome != "either" and accepted != (outcome != "refused"):
            return f"{'accepted' if accepted else 'refused'}, expected: {outcome} {', '.join(named)}"
        if not accepted:
            lacking = [name for name in named if name not in said]
            if lacking:
                return f"refused, but names no {', '.join(lacking)}"
            if len(said) > SHOWN and not out.startswith("{"):
                return f"a refusal of {len(said):,} characters"
        wrong = self._changed(area, given, accepted)
        if wrong:
            return wrong
        if accepted:
            came = area.outcome(self.place, out, err)
            wanted = self.valid[area.name, base] if outcome == "same" else result
            if wanted is not None and came != wanted:
                return f"gives {came}, expected: {wanted}"
            return area.afterwards(self.place, given)
        return ""

    def _changed(self, area, given, accepted):
        """Which files are not as they were, or new without need."""
        for name, data in given.files.items():
            path = self.place / name
            if name.startswith(area.scratch or "\0"):
                continue
            if data is not None and not (path.is_file() and path.read_bytes() == data):
                return f"changes or removes {name}"
        found = (str(path.relative_to(self.place)) for path in self.place.rglob("*") if path.is_file())
        new = sorted(name for name in found if name not in given.files and not area.leaves(name, accepted))
        return f"leaves {', '.join(new[:5])}" if new else ""


def differences(valid, given):
    """The lines of a spoiled input's files that the valid one does not have, cut short."""
    for name in sorted({*valid.files, *given.files}):
        before, after = (each.files.get(name) or b"" for each in (valid, given))
        if before != after:
            pair = (data.decode(errors="backslashreplace").split("\n") for data in (before, after))
            lines = [
                line for line in difflib.unified_diff(*pair, n=0, lineterm="") if line[:2] not in ("--", "++", "@@")
            ]
            yield "\n".join([name, *(line[:150] for line in sorted(lines)[:12])])


@contextmanager
def within(seconds):
    """Raise ``TookTooLong`` where the block takes longer."""

    def stop(*_):
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
