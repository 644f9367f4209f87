import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from loop.config import ROOT, Data, UserError
from loop.data.sources import check_source, read_rows

TABLE = pd.DataFrame({"age": [30, 41, 52], "city": ["Ulm", "Köln", "Bonn"], "label": [0, 1, 0]})


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def data(source: object, target: str = "label", **more: Any) -> Data:
    return Data(source=str(source), target=target, **more)


def read(source: object, **more: Any) -> pd.DataFrame:
    return read_rows(data(source, **more))


def refusal(source: str, *, checked: bool = True, **more: Any) -> str:
    """Return what read_rows says; the check before a run must say the same where it can know."""
    with pytest.raises(UserError) as read_error:
        read(source, **more)
    if checked:
        with pytest.raises(UserError) as check_error:
            check_source(data(source, **more))
        assert str(check_error.value) == str(read_error.value)
    assert "\n" not in str(read_error.value)
    return str(read_error.value)


def write(name: str, text: str, encoding: str = "utf-8") -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(text.encode(encoding))
    return name


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.bz2", "csv.xz", "csv.zip", "tsv", "parquet", "jsonl.gz"])
def test_reads_the_same_table_from_every_kind_of_file(ending: str) -> None:
    name = f"claims.{ending}"
    if ending == "parquet":
        TABLE.to_parquet(name)
    elif ending.startswith("jsonl"):
        TABLE.to_json(name, orient="records", lines=True)
    else:
        TABLE.to_csv(name, index=False, sep="\t" if ending == "tsv" else ",")
    check_source(data(name))
    assert_frame_equal(read(name), TABLE)
    assert_frame_equal(read(name, rows=2), TABLE.head(2))


def test_reads_json_as_lines_and_as_one_list() -> None:
    for lines in (True, False):
        TABLE.to_json("a.json", orient="records", lines=lines)
        assert_frame_equal(read("a.json", rows=2), TABLE.head(2))


def test_numbers_are_the_same_to_the_last_bit_in_every_kind_of_file() -> None:
    bits = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    floats = bits.view(np.float64)
    table = pd.DataFrame({"x": floats[np.abs(floats) > np.finfo(float).tiny], "label": 0})  # NaN goes too
    table.to_csv("a.csv", index=False)
    write("a.jsonl", "\n".join(json.dumps({"x": x, "label": 0}) for x in table.x))
    for name in ("a.csv", "a.jsonl"):
        assert_frame_equal(read(name), table, check_exact=True)
    for options in ({"float_precision": "high"}, {"engine": "python"}, {"engine": "pyarrow"}):
        assert_frame_equal(read("a.csv", options=options), table, check_exact=True)


def test_joins_files_of_a_glob_or_folder_in_sorted_order() -> None:
    for name in ("b", "a"):
        write(f"data/{name}.csv", f"x,label\n{name},1\n")
    write("data/_SUCCESS", "")
    write("data/README.md", "hello")
    for source in ("data", "data/*.csv", "d*/**/*.csv", Path.cwd() / "data"):
        assert read(source).x.tolist() == ["a", "b"]
    assert read("data", rows=1).x.tolist() == ["a"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_partitions_of_a_folder_are_columns(ending: str) -> None:
    for year in (2023, 2024):
        Path(f"t/year={year}/land=a%20b").mkdir(parents=True)
        getattr(TABLE, f"to_{ending}")(f"t/year={year}/land=a%20b/part.{ending}", index=False)
    for source in ("t", f"t/**/*.{ending}", f"t/year=*/*/*.{ending}"):
        rows = read(source, id=("year",))
        assert rows.year.tolist() == [2023] * 3 + [2024] * 3
        assert set(rows.land) == {"a b"}


def test_reads_any_fsspec_url_and_leaves_it_alone_in_the_check() -> None:
    with fsspec.open("memory://lake/claims.csv", "w") as handle:
        TABLE.to_csv(handle, index=False)
    assert_frame_equal(read("memory://lake/claims.csv"), TABLE)
    assert_frame_equal(read("memory://lake/*.csv"), TABLE)
    check_source(data("memory://nowhere/claims.csv"))
    assert "no file 'memory://nowhere/claims.csv'" in refusal("memory://nowhere/claims.csv", checked=False)


def test_options_reach_the_reader() -> None:
    write("a.csv", "age;label\n1,5;0\n2,5;1\n")
    assert read("a.csv", options={"sep": ";", "decimal": ","}).age.tolist() == [1.5, 2.5]
    TABLE.to_parquet("a.parquet")
    assert list(read("a.parquet", options={"columns": ["label"]}, rows=2)) == ["label"]
    assert "no option 'sep' (data.options)" in refusal("a.parquet", options={"sep": ";"}, checked=False)
    assert len(read("a.csv", options={"sep": ";", "skipfooter": 1})) == 1
    assert read("a.csv", options={"sep": ";|,"}, target="age").shape == (2, 2)
    assert "no option 'separ'" in (
        message := refusal("a.csv", options={"separ": ";"}, target="age;label", checked=False)
    )
    assert "did you mean 'sep'?" in message


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).map(str.strip).filter(bool)


@settings(max_examples=40, deadline=None)
@given(st.lists(names, min_size=2, max_size=5, unique=True))
def test_column_names_come_back_as_they_were(columns: list[str]) -> None:
    pd.DataFrame([range(len(columns))] * 2, columns=columns).to_csv("names.csv", index=False)
    assert list(read("names.csv", target=columns[0])) == columns


def test_names_lose_surrounding_whitespace_only() -> None:
    write("a.csv", " my age , label\n1,0\n")
    assert list(read("a.csv")) == ["my age", "label"]


def test_types_are_honest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {
        "iso": ["2024-01-31", None, "2024-02-01"],
        "zoned": ["2024-01-31T10:00:00+02:00", "2024-01-31 10:00Z", None],
        "german": ["31.01.2024", "01.02.2024", "01.03.2024"],
        "american": ["01/31/2024", "02/01/2024", "02/02/2024"],
        "in_doubt": ["01/02/2024", "02/03/2024", "03/04/2024"],
        "no_day": ["2024-02-30", "2024-02-01", "2024-02-02"],
        "zip": ["01234", "01235", "01236"],
        "flag": [True, None, False],
        "numbers": [1, 2.5, None],
        "mixed": [1, "a", None],
        "nested": [{"a": 1}, None, {"a": 2}],
        "label": [0, 1, 0],
    }
    made = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in table.items()})
    made["category"] = pd.Categorical(["a", "b", None])
    made["whole"] = pd.array([1, None, 3], dtype="Int64")
    made["when"] = pd.to_datetime(["2024-01-01"] * 3).tz_localize("Europe/Berlin").as_unit("s")
    made.to_pickle("made.pickle")
    write("made_here.py", "import pandas as pd\ndef table():\n    return pd.read_pickle('made.pickle')\n")
    monkeypatch.syspath_prepend(tmp_path)
    rows = read("made_here:table")
    times = ["iso", "zoned", "german", "american", "when"]
    assert {str(rows[name].dtype) for name in times} == {"datetime64[us]"}
    assert rows.zoned[0] == pd.Timestamp("2024-01-31 08:00")
    assert rows.american[0] == rows.german[0] == rows.iso[0]
    strings = ["in_doubt", "no_day", "zip", "mixed", "nested", "category"]
    assert {str(rows[name].dtype) for name in strings} == {"str"}
    assert rows.mixed.tolist()[:2] == ["1", "a"]
    assert rows.mixed.isna().tolist() == [False, False, True]
    assert [str(rows[name].dtype) for name in ("flag", "numbers", "whole", "label")] == [
        "boolean",
        "float64",
        "float64",
        "int64",
    ]
    rows.to_parquet("back.parquet")
    assert_frame_equal(pd.read_parquet("back.parquet"), rows)
    assert read("made_here:table", kinds={"iso": "categorical"}).iso[0] == "2024-01-31"


def test_csv_flags_with_gaps_and_json_codes_keep_their_type() -> None:
    write("a.csv", "x,label\ntrue,1\n,0\nfalse,1\n")
    assert read("a.csv").x.dtype == "boolean"
    write("a.jsonl", '{"date": 20240101, "code": "007", "label": 1}\n')
    assert read("a.jsonl").iloc[0].tolist() == [20240101, "007", 1]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "a.csv is empty"),
        ("a.csv", "age;label\n1;0\n", "set data.options.sep: ';'"),
        ("a.csv", "age\tlabel\n1\t0\n", 'set data.options.sep: "\\t"'),
        ("a.csv", "age|label\n1|0\n", "set data.options.sep: '|'"),
        (
            "a.csv",
            "age,income,labl\n1,2,3\n",
            "no column 'label' in a.csv; it has age, income, labl; did you mean 'labl'?",
        ),
        ("a.csv", "AGE,LABEL,LABELS\n1,2,3\n", "it has AGE, LABEL, LABELS; did you mean 'LABEL'?"),
        ("a.csv", "age,age ,label\n1,2,3\n", "a.csv has column 'age' more than once"),
        ("a.parquet", "\x00PAR", "a.parquet is not a whole Parquet file"),
        ("a.ods", "\x00", "no data file at data.source 'a.ods'; it needs .csv, .tsv, .parquet"),
        ("a.csv.gz", "age,label\n1,0\n", "a.csv.gz is text; name it a.csv"),
        ("d/readme.txt", "x", "no data file at data.source 'd'"),
    ],
)
def test_the_check_before_a_run_says_what_is_wrong_with_a_file(name: str, text: str, words: str) -> None:
    assert words in refusal(write(name, text).split("/")[0])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "age,label\n", "a.csv is empty"),
        ("a.jsonl", "\n", "a.jsonl is empty"),
        (
            "a.csv",
            "age,label\n1,0\n1,2,3\n",
            "a line has 3 fields instead of 2 (line 3 is the first), e.g. '1,2,3'; repair it",
        ),
        (
            "a.csv",
            "age,label\n1,2,3\n1,2,3\n",
            "all lines have one field more than the header; repair it, or set data.options.index_col: 0",
        ),
        ("a.jsonl", '{"a": 1\n', "cannot read a.jsonl"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "a.jsonl needs objects of named values, record 2 is none"),
    ],
)
def test_reading_says_what_is_wrong_with_a_file(name: str, text: str, words: str) -> None:
    assert words in refusal(write(name, text), checked=False)


def test_a_message_names_twelve_columns_at_most() -> None:
    write("a.csv", ",".join(f"c{i}" for i in range(40)) + ",lable\n")
    message = refusal("a.csv")
    assert "among 41 names it has" in message
    assert message.endswith("did you mean 'lable'?")
    assert message.count(",") == 11


@pytest.mark.parametrize(
    "more", [{"id": ("agee",)}, {"time": "agee"}, {"drop": ("agee",)}, {"kinds": {"agee": "text"}}]
)
def test_columns_the_config_names_must_be_there(more: dict[str, Any]) -> None:
    write("a.csv", "age,label\n1,0\n")
    assert f"no column 'agee' (data.{next(iter(more))}) in a.csv" in refusal("a.csv", **more)


def test_refuses_files_that_do_not_belong_together() -> None:
    write("data/a.csv", "x,label\n1,0\n")
    write("data/b.csv", "y,label\n1,0\n")
    assert "b.csv and a.csv differ: only one has x, y" in refusal("data", checked=False)
    write("data/c.jsonl", "{}")
    assert "holds .csv and .jsonl files; choose by a glob" in refusal("data")


def test_refuses_a_broken_parquet_file() -> None:
    TABLE.to_parquet("a.parquet")
    whole = Path("a.parquet").read_bytes()
    Path("a.parquet").write_bytes(whole[:-20])
    assert "a.parquet is not a whole Parquet file" in refusal("a.parquet")
    Path("a.parquet").write_bytes(whole[:-40] + b"?" * 32 + whole[-8:])
    assert "cannot read a.parquet" in refusal("a.parquet", checked=False)


def test_says_what_is_there_instead_of_a_missing_file() -> None:
    write("data/claims.csv", "x,label\n1,0\n")
    message = refusal("data/claim.csv")
    assert "no file 'data/claim.csv'" in message
    assert "did you mean 'claims.csv'?" in message


@pytest.fixture
def database() -> str:
    engine = sa.create_engine("sqlite:///claims.db", poolclass=sa.NullPool)
    TABLE.assign(day="2024-01-31").to_sql("claims", engine, index=False)
    return "sqlite:///claims.db"


def test_reads_a_query(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAIMS_DB", database)
    rows = read("${CLAIMS_DB}", query="SELECT * FROM claims WHERE city LIKE '%n' OR ':x' = '%s'")
    assert rows.city.tolist() == ["Köln", "Bonn"]
    assert rows.day.dtype == "datetime64[us]"
    assert len(read(database, query="SELECT * FROM claims", rows=2)) == 2
    options = {"params": [40]}
    assert len(read(database, query="SELECT * FROM claims WHERE age > ?", options=options)) == 2


def test_says_what_is_wrong_with_a_query(database: str) -> None:
    assert "data.query is missing" in refusal(database)
    assert "no database file 'typo.db'" in refusal("sqlite:///typo.db", query="SELECT 1")
    assert not Path("typo.db").exists()
    assert "no such table: x" in refusal(database, query="SELECT * FROM x", checked=False)
    assert "is empty" in refusal(database, query="SELECT * FROM claims WHERE age > 99", checked=False)
    twice = "SELECT age, age, label FROM claims"
    assert "has column 'age' more than once" in refusal(database, query=twice, checked=False)
    write("a.csv", "x,label\n1,0\n")
    assert "data.query needs a database URL as data.source, that is 'a.csv'" in refusal("a.csv", query="SELECT 1")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "mysql+pymysql://ann:s3cret@127.0.0.1:1/x",
            "cannot read from mysql+pymysql://ann:***@127.0.0.1:1/x: ",
        ),
        ("postgresql://ann:s3cret@127.0.0.1:1/x", "install psycopg2-binary"),
        ("postgres://ann:s3cret@h/x", "write postgresql://"),
        ("nosuch://ann:s3cret@h/x", "no SQLAlchemy dialect for 'nosuch://'"),
        ("mysql+pymysql://ann:s3cret:x@h:s3cret/x", "'${DB}' holds no readable database URL"),
    ],
)
def test_a_database_out_of_reach_is_one_line_without_the_password(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB", url)
    check_source(data("${DB}", query="SELECT 1"))
    with pytest.raises(UserError) as error:
        read("${DB}", query="SELECT 1")
    assert words in str(error.value)
    assert "s3cret" not in str(error.value)
    assert error.value.__cause__ is None


def test_refuses_an_unset_variable(database: str) -> None:
    assert "data.source needs the environment variable NOT_SET" in refusal("${NOT_SET}/a.csv")
    assert "data.query needs the environment variable NOT_SET" in refusal(database, query="SELECT '${NOT_SET}'")


def test_reads_the_bundled_sets() -> None:
    rows = read("sklearn:breast_cancer", target="diagnosis")
    assert rows.shape == (569, 31)
    assert set(rows.diagnosis) == {"malignant", "benign"}
    assert read("sklearn:iris", rows=30).label.nunique() == 3  # the set is sorted by class
    assert read("sklearn:digits").label.dtype == read("sklearn:wine").index.dtype == "int64"
    assert read("sklearn:diabetes").label.dtype == "float64"
    message = refusal("sklearn:irish")
    assert "breast_cancer, diabetes, digits, iris, wine; did you mean 'iris'?" in message
    assert "takes no data.options" in refusal("sklearn:iris", options={"a": 1}, checked=False)


def test_calls_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        "makers.py",
        "def make(*, size=3):\n    import pandas as pd\n    return pd.DataFrame({'label': range(size)})\n"
        "def wrong():\n    return 1\ndef needs(a):\n    pass\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert len(read("makers:make", options={"size": 5})) == 5
    assert len(read("makers:make", options={"size": 5}, rows=2)) == 2
    assert len(read("model.fraud:card_transactions", target="fraud", rows=7)) == 7
    assert "no module 'core.frod'" in (message := refusal("core.frod:card_transactions"))
    assert "did you mean 'model.fraud'?" in message
    assert "did you mean 'make'?" in refusal("makers:mak", checked=False)
    assert "no option 'sice'" in (message := refusal("makers:make", options={"sice": 1}, checked=False))
    assert "did you mean 'size'?" in message
    assert "makers:wrong takes none: do in it what 'sep' would do" in refusal(
        "makers:wrong", options={"sep": ";"}, checked=False
    )
    assert "must return a DataFrame, it returned int" in refusal("makers:wrong", checked=False)
    assert "missing a required argument: 'a'" in refusal("makers:needs", checked=False)


def test_a_config_is_code() -> None:
    message = refusal("os:system", options={"command": "touch ran"}, checked=False)
    assert message == "os:system must return a DataFrame, it returned int"
    assert Path("ran").exists()


def test_the_check_is_quick_and_light() -> None:
    TABLE.to_csv("a.csv", index=False)
    code = (
        "import sys; from loop.config import Data; from loop.data.sources import check_source\n"
        "for source in ('a.csv', 'sklearn:iris', 'model.fraud:card_transactions'):\n"
        "    check_source(Data(source=source, target='label'))\n"
        "check_source(Data(source='postgresql://h/x', target='label', query='SELECT 1'))\n"
        "print([name for name in ('pandas', 'sklearn', 'sqlalchemy', 'zenml') if name in sys.modules])"
    )
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - begin < 5  # with imports, on a busy machine
