import pytest

from zoo.data.layouts import ECOMMERCE_IC, ECOMMERCE_T2I, MULTIMODAL_RETRIEVAL, find_layouts, find_task_folder
from zoo.errors import UserError
from zoo.spec import find_specs


def test_tasks_name_their_layouts():
    assert find_layouts() == {
        "captioning": ECOMMERCE_IC,
        "retrieval": MULTIMODAL_RETRIEVAL,
        "text_to_image": ECOMMERCE_T2I,
    }
    assert {spec.name for spec in find_specs() if not spec.files} == {"image_tokenizer"}


def test_a_folder_is_found_from_itself_and_from_its_parent(tmp_path):
    folder = tmp_path / "ECommerce-IC"
    folder.mkdir()
    assert find_task_folder(tmp_path, ECOMMERCE_IC) == folder
    assert find_task_folder(folder, ECOMMERCE_IC) == folder


@pytest.mark.parametrize("name", ["MR_train_imgs.tsv", "valid_imgs.tsv"])
def test_a_renamed_folder_is_known_by_its_files(tmp_path, name):
    (tmp_path / name).touch()
    assert find_task_folder(tmp_path, MULTIMODAL_RETRIEVAL) == tmp_path


def test_errors_of_find_task_folder_say_what_is_there(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        UserError, match="(?s)neither a folder 'ECommerce-T2I' nor files like T2I_.*holds notes.txt"
    ) as raised:
        find_task_folder(tmp_path, ECOMMERCE_T2I)
    assert (raised.value.argument, raised.value.value, raised.value.valid) == ("root", str(tmp_path), "ECommerce-T2I")
    with pytest.raises(UserError) as raised:
        find_task_folder(tmp_path / "gone", ECOMMERCE_T2I)
    assert (raised.value.argument, raised.value.valid) == ("root", "a folder")


@pytest.mark.parametrize(
    "names", [("MR_valid_imgs.tsv", "MR_valid_queries.jsonl"), ("valid_imgs.tsv", "valid_texts.jsonl")]
)
def test_the_files_of_a_split_are_found_under_both_names(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    assert MULTIMODAL_RETRIEVAL.files(tmp_path, "valid") == (tmp_path / names[0], tmp_path / names[1], None)


def test_muges_own_name_of_a_split_is_the_layouts_business(tmp_path):
    for name in ("T2I_val.img.tsv", "T2I_val.text.tsv"):
        (tmp_path / name).touch()
    files = ECOMMERCE_T2I.files(tmp_path, "valid")
    assert files == (tmp_path / "T2I_val.img.tsv", tmp_path / "T2I_val.text.tsv", None)


def test_images_that_muge_keeps_to_itself_need_not_be_there(tmp_path):
    (tmp_path / "T2I_test.txt.tsv").touch()
    assert ECOMMERCE_T2I.files(tmp_path, "test", need_images=False).images == tmp_path / "T2I_test.img.tsv"
    with pytest.raises(UserError) as raised:
        ECOMMERCE_T2I.files(tmp_path, "test")
    assert raised.value.valid == ("T2I_test.img.tsv",)


def test_answers_are_those_of_the_test_split_only(tmp_path):
    for name in ("test_imgs.tsv", "test_texts.jsonl", "train_imgs.tsv", "train_texts.jsonl", "MR_test_answers.jsonl"):
        (tmp_path / name).touch()
    assert MULTIMODAL_RETRIEVAL.files(tmp_path, "test").answers == tmp_path / "MR_test_answers.jsonl"
    assert MULTIMODAL_RETRIEVAL.files(tmp_path, "train").answers is None


def test_a_missing_split_file_is_named_with_what_is_there(tmp_path):
    (tmp_path / "MR_valid_imgs.tsv").touch()
    with pytest.raises(UserError, match=r"It holds MR_valid_imgs.tsv") as raised:
        MULTIMODAL_RETRIEVAL.files(tmp_path, "valid")
    assert raised.value.valid == ("MR_valid_queries.jsonl", "valid_texts.jsonl")


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(UserError, match="Did you mean valid") as raised:
        MULTIMODAL_RETRIEVAL.files(tmp_path, "val")
    assert (raised.value.argument, raised.value.value) == ("split", "val")
    assert raised.value.valid == ("train", "valid", "test")
