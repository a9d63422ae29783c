import os

import pytest

from zoo.errors import UserError
from zoo.tasks.retrieval.search.images import ProductImages


def test_files_and_rows_of_a_tsv(muge_root):
    from zoo.data.tsv import ImageTsv

    folder = muge_root / "Multimodal_Retrieval"
    images = ProductImages(folder)
    tsv = ImageTsv(folder / "MR_test_imgs.tsv")
    assert images.read("MR_test_imgs.tsv#3001") == tsv[tsv.row_of(3001)]
    assert images.read("MR_test_queries.jsonl") == (folder / "MR_test_queries.jsonl").read_bytes()
    stamp = images.stamp("MR_test_imgs.tsv#3001")
    assert stamp == images.stamp("MR_test_imgs.tsv#3002")


def test_another_stamp_where_a_file_has_changed(shop):
    images = ProductImages(shop)
    before = images.stamp("images/00.png")
    os.utime(shop / "images" / "00.png", ns=(1, 1))
    assert images.stamp("images/00.png") != before


@pytest.mark.parametrize(
    "image",
    ["../secret", "/etc/passwd", "images/../../secret", "", "a\0b", "../x.tsv#1", "images/00.tsv#x", "x.tsv#²"],
)
def test_a_path_that_leaves_the_folder(shop, image):
    (shop.parent / "secret").write_text("secret")
    for method in (ProductImages(shop).read, ProductImages(shop).stamp):
        with pytest.raises(UserError) as error:
            method(image)
        assert error.value.argument == "image"


def test_an_image_that_is_not_there(shop):
    with pytest.raises(UserError) as error:
        ProductImages(shop).read("images/99.png")
    assert error.value.value == "images/99.png"
    with pytest.raises(UserError) as error:
        ProductImages(shop / "nowhere")
    assert error.value.argument == "--images"
