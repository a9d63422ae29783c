"""Errors keep their fields on the way between processes, and their words out of a loader's workers."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
from torch.utils.data import DataLoader, Dataset

from zoo.errors import FileError, UserError, last_line, raise_or_list, summed_up

ERRORS = [
    UserError("--valid is 2: give less than 1.", argument="--valid", value=2, valid="0 to 1"),
    FileError("is blank; take it out", file="a.jsonl", line=3, id=7, noun="query", kind="blank_line"),
]


class Broken(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, row):
        raise self.error


def test_errors_alike_are_counted():
    blank = [FileError(f"line {n} is blank; take it out", file="a.jsonl", line=n) for n in range(1, 9)]
    other = [FileError(f"{n} is no id", file="a.jsonl", line=n, kind="wrong_type") for n in range(9, 15)]
    assert list(summed_up([*blank[:3], *other, *blank[3:]])) == [
        *map(str, blank[:3]),
        *map(str, other[:5]),
        "a.jsonl: and 1 more like this",
        *map(str, blank[3:5]),
        "a.jsonl: and 3 more like this",
    ]
    assert list(summed_up(blank[:5])) == [str(error) for error in blank[:5]]


def test_a_files_error_names_file_line_and_id():
    assert str(ERRORS[1]) == "a.jsonl:3: query 7: is blank; take it out"
    assert str(FileError("is empty", file="a.jsonl")) == "a.jsonl: is empty"


@pytest.mark.parametrize("error", ERRORS)
def test_pickling_keeps_words_and_fields(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("error", ERRORS)
def test_another_process_raises_the_same_error(error):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool, pytest.raises(type(error)) as raised:
        pool.submit(raise_or_list, error, None).result(timeout=120)
    assert str(raised.value) == str(error)
    assert {**vars(raised.value), "__notes__": None} == {**vars(error), "__notes__": None}


@pytest.mark.parametrize("error", ERRORS)
def test_a_loaders_worker_raises_the_same_class_and_words(error):
    with pytest.raises(type(error)) as raised:
        list(DataLoader(Broken(error), num_workers=1))
    assert last_line(raised.value) == str(error)


def test_an_error_is_raised_or_listed():
    with pytest.raises(FileError):
        raise_or_list(ERRORS[1], None)
    raise_or_list(ERRORS[1], listed := [])
    assert listed == [ERRORS[1]]
