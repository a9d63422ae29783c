import json

import pytest

from zoo.data.formats import (
    Query,
    find_task_folder,
    read_queries,
    retrieval_files,
    write_image_tsv,
    write_queries,
    write_text_tsv,
)
from zoo.errors import UserError

QUERIES = [
    Query(8426, "胖妹妹松紧腰长裤", (42967, 7)),
    Query(8427, 'a "quoted" 裤\t子', (1,), kind="name"),
    Query(9, "没有答案"),
]


@pytest.mark.parametrize("schema", ["muge", "cn_clip"])
def test_what_is_written_is_read_back(tmp_path, schema):
    write_queries(tmp_path / "q.jsonl", QUERIES, schema=schema)
    assert read_queries(tmp_path / "q.jsonl") == QUERIES


def test_muges_own_line_is_written(tmp_path):
    write_queries(tmp_path / "q.jsonl", [QUERIES[0], QUERIES[2]])
    assert (tmp_path / "q.jsonl").read_text(encoding="utf-8") == (
        '{"query_id": 8426, "query_text": "胖妹妹松紧腰长裤", "item_ids": [42967, 7]}\n'
        '{"query_id": 9, "query_text": "没有答案"}\n'
    )


def test_chinese_clips_own_line_is_written(tmp_path):
    write_queries(tmp_path / "q.jsonl", [QUERIES[2]], schema="cn_clip")
    assert json.loads((tmp_path / "q.jsonl").read_text("utf-8")) == {"text_id": 9, "text": "没有答案", "image_ids": []}


def test_an_unknown_schema_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="'cnclip' is not one of muge, cn_clip. Did you mean cn_clip"):
        write_queries(tmp_path / "q.jsonl", QUERIES, schema="cnclip")
    assert not list(tmp_path.iterdir())


def test_empty_lines_crlf_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"query_id": 1, "query_text": "a", "item_ids": []}\r\n\r\n{"text_id": 2, "text": "b"}'
    )
    assert read_queries(path) == [Query(1, "a"), Query(2, "b")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query_id": 2, "query_text"', "not a line of JSON"),
        ('["query_id"]', "a JSON list"),
        ('{"query_text": "a"}', "no query_id"),
        ('{"query_id": "2", "query_text": "a"}', "query_id is '2'"),
        ('{"query_id": true, "query_text": "a"}', "query_id is True"),
        ('{"query_id": 9223372036854775808, "query_text": "a"}', "an integer of 64 bits"),
        ('{"query_id": 2, "query_text": "\\ud83d"}', "of whole characters"),
        ("[" * 100_000, "not a line of JSON"),
        ('{"query_id": 2, "query_text": null}', "query 2: query_text is None"),
        ('{"query_id": 2, "text": "a"}', "query 2: no query_text"),
        ('{"query_id": 2, "query_text": "a", "item_ids": 5}', "query 2: item_ids is 5"),
        ('{"query_id": 2, "query_text": "a", "item_ids": ["5"]}', "query 2: item_ids is"),
        ('{"text_id": 2, "text": "a", "image_ids": [1.0]}', "query 2: image_ids is"),
        ('{"query_id": 2, "query_text": "a", "kind": 1}', "query 2: kind is 1"),
        ('{"query_id": 1, "query_text": "again"}', "query id 1 is already on line 1"),
    ],
)
def test_a_malformed_line_is_named_with_its_file_line_and_id(tmp_path, line, message):
    path = tmp_path / "q.jsonl"
    path.write_text('{"query_id": 1, "query_text": "好", "item_ids": [1]}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(UserError) as raised:
        read_queries(path)
    assert str(raised.value).startswith(f"{path}:2: ")
    assert message in str(raised.value)


def test_malformed_and_repeated_lines_are_left_out_where_faults_are_listed(tmp_path):
    path = tmp_path / "q.jsonl"
    lines = ['{"query_id": 1, "query_text": "a"}', "{", "[]", '{"query_id": "2"}', '{"query_id": 1, "query_text": "b"}']
    path.write_text("\n".join([*lines, "", '{"query_id": 3, "query_text": "c"}']))
    queries = read_queries(path, faults := [])
    assert queries == [Query(1, "a"), Query(3, "c")]
    assert [query.line for query in queries] == [1, 7]
    told = ["2: not a line of JSON", "3: a JSON list", "4: query_id is '2'", "5: query id 1 is already on line 1"]
    assert len(faults) == len(told)
    assert all(fault.startswith(f"{path}:{words}") for fault, words in zip(faults, told, strict=True))


def test_bytes_that_are_not_utf8_are_a_malformed_line(tmp_path):
    (tmp_path / "q.jsonl").write_bytes('{"query_id": 1, "query_text": "裤"}'.encode("gbk"))
    with pytest.raises(UserError, match=r"q\.jsonl:1: not a line of JSON in UTF-8"):
        read_queries(tmp_path / "q.jsonl")


def test_a_missing_query_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.jsonl' is not there"):
        read_queries(tmp_path / "nowhere.jsonl")


def test_a_task_folder_is_found_from_itself_and_from_its_parent(tmp_path):
    folder = tmp_path / "ECommerce-IC"
    folder.mkdir()
    assert find_task_folder(tmp_path, "caption") == folder
    assert find_task_folder(folder, "caption") == folder


@pytest.mark.parametrize("name", ["MR_train_imgs.tsv", "valid_imgs.tsv"])
def test_a_renamed_task_folder_is_known_by_its_files(tmp_path, name):
    (tmp_path / name).touch()
    assert find_task_folder(tmp_path, "retrieval") == tmp_path


def test_errors_of_find_task_folder_say_what_is_there(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="(?s)neither a folder 'ECommerce-T2I' nor files like T2I_.*holds notes.txt"):
        find_task_folder(tmp_path, "t2i")
    with pytest.raises(UserError, match="is not there"):
        find_task_folder(tmp_path / "gone", "t2i")
    with pytest.raises(UserError, match="'captions' is not one of retrieval, t2i, caption. Did you mean caption"):
        find_task_folder(tmp_path, "captions")


@pytest.mark.parametrize(
    "names", [("MR_valid_imgs.tsv", "MR_valid_queries.jsonl"), ("valid_imgs.tsv", "valid_texts.jsonl")]
)
def test_the_files_of_a_split_are_found_under_both_names(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    assert retrieval_files(tmp_path, "valid") == (tmp_path / names[0], tmp_path / names[1], None)


def test_answers_are_those_of_the_test_split_only(tmp_path):
    for name in ("test_imgs.tsv", "test_texts.jsonl", "train_imgs.tsv", "train_texts.jsonl", "MR_test_answers.jsonl"):
        (tmp_path / name).touch()
    assert retrieval_files(tmp_path, "test").answers == tmp_path / "MR_test_answers.jsonl"
    assert retrieval_files(tmp_path, "train").answers is None


def test_a_missing_split_file_is_named_with_what_is_there(tmp_path):
    (tmp_path / "MR_valid_imgs.tsv").touch()
    with pytest.raises(UserError, match=r"no MR_valid_queries.jsonl or valid_texts.jsonl. It holds MR_valid_imgs.tsv"):
        retrieval_files(tmp_path, "valid")
    with pytest.raises(UserError, match="'val' is not one of train, valid, test. Did you mean valid"):
        retrieval_files(tmp_path, "val")


def test_picture_and_text_files(tmp_path):
    write_image_tsv(tmp_path / "i.tsv", [(7, b"\xfb\xff"), ("8cf9", b"x")])
    assert (tmp_path / "i.tsv").read_bytes() == b"7\t+/8=\n8cf9\teA==\n"
    write_text_tsv(tmp_path / "t.tsv", [("8cf9", "短裤")])
    assert (tmp_path / "t.tsv").read_text("utf-8") == "8cf9\t短裤\n"


@pytest.mark.parity
def test_a_submission_is_accepted_by_the_packaged_evaluator(tmp_path):
    from cn_clip.eval.evaluation import compute_score

    truth = [Query(n, f"查询{n}", (n * 10 + 3,), kind="name") for n in range(4)]
    found = [Query(n, f"查询{n}", tuple(range(n * 10, n * 10 + 10)), kind="name") for n in range(4)]
    write_queries(tmp_path / "truth.jsonl", truth, schema="cn_clip")
    write_queries(tmp_path / "found.jsonl", found, schema="cn_clip")
    scores = compute_score(str(tmp_path / "truth.jsonl"), str(tmp_path / "found.jsonl"))
    assert scores == pytest.approx([200 / 3, 0, 100, 100])
