"""The tables beside this script, by the programs themselves, with their defaults.

`python tests/tables/make.py` writes them anew; each program that is not there is left out. They
were made by pandas 3.1.1, polars 2.1.0, DuckDB 2.0.1, R 4.2.2, LibreOffice 7.4.7, gawk 5.2.1 and
mawk 1.3.4. Excel's are written here byte by byte, as Excel for Windows saves "CSV UTF-8", in an
English and in a German locale, and "Unicode text".
"""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("cat", "dog", "bird")
LOGITS = ((1.5, -0.25, 3.0), (0.00001, 1234.5, 1.0), (-2.0, 0.125, -0.5), (0.75, 0.5, 2.25))
LABELS = ("bird", "dog", "cat", "dog")

R = """
table <- data.frame(cat=c({0}), dog=c({1}), bird=c({2}), label=c({3}))
write.csv(table, "r-write.csv")
write.csv2(table, "r-write.csv2")
write.table(table, "r-write.table")
write.table(as.matrix(table[1:3]), "r-matrix.table")
write.table(unname(as.matrix(table[1:3])), "r-unnamed.table")
"""

GERMAN = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry"
           xmlns:xs="http://www.w3.org/2001/XMLSchema">
<item oor:path="/org.openoffice.Setup/L10N"><prop oor:name="ooSetupSystemLocale" oor:op="fuse">
<value>de-DE</value></prop></item></oor:items>
"""


def columns():
    """The numbers of each class."""
    return dict(zip(NAMES, map(list, zip(*LOGITS, strict=True)), strict=True))


def by_pandas(pandas):
    """With the index, which is the default: named columns, unnamed ones, some of the rows."""
    table = pandas.DataFrame({**columns(), "label": LABELS})
    table.to_csv(HERE / "pandas.csv")
    table.to_csv(HERE / "pandas-without-index.csv", index=False)
    table.rename_axis("id").to_csv(HERE / "pandas-named-index.csv")
    table.iloc[[3, 0, 2]].to_csv(HERE / "pandas-some-rows.csv")
    pandas.DataFrame(LOGITS).to_csv(HERE / "pandas-unnamed.csv")
    pandas.Series(LABELS).to_csv(HERE / "pandas-labels.csv")
    table.to_csv(HERE / "pandas-decimal.csv", sep=";", decimal=",")


def by_polars(polars):
    """A table, and one without names."""
    polars.DataFrame({**columns(), "label": LABELS}).write_csv(HERE / "polars.csv")
    polars.DataFrame(LOGITS, orient="row").write_csv(HERE / "polars-unnamed.csv")


def by_duckdb(duckdb):
    """COPY … TO, from polars' file."""
    with duckdb.connect() as database:
        query = f"select * from read_csv('{HERE}/polars.csv')"
        database.execute(f"copy ({query}) to '{HERE}/duckdb.csv'")


def by_r():
    """The three functions that write text, and matrices with and without names."""
    parts = [", ".join(map(repr, numbers)) for numbers in columns().values()]
    labels = ", ".join(f'"{label}"' for label in LABELS)
    subprocess.run(["Rscript", "-e", R.format(*parts, labels)], cwd=HERE, check=True)


def by_libreoffice():
    """A spreadsheet, saved as CSV: by default, and as in a German locale."""
    folder = HERE / "office"
    convert = ["soffice", "--headless", "--convert-to"]
    subprocess.run([*convert, "ods", "--outdir", folder, HERE / "polars.csv"], check=True)
    book = folder / "polars.ods"
    subprocess.run([*convert, "csv", "--outdir", folder, book], check=True)
    (folder / "polars.csv").replace(HERE / "libreoffice.csv")
    (folder / "user").mkdir()
    (folder / "user" / "registrymodifications.xcu").write_text(GERMAN)
    convert.insert(1, f"-env:UserInstallation={folder.as_uri()}")
    semicolons = "csv:Text - txt - csv (StarCalc):59,34,76"  # what its dialog offers there
    subprocess.run([*convert, semicolons, "--outdir", folder, book], check=True)
    (folder / "polars.csv").replace(HERE / "libreoffice-german.csv")
    shutil.rmtree(folder)


def by_awk():
    """What `print` and `printf` make of numbers."""
    numbers = "\n".join(" ".join(map(repr, row)) for row in LOGITS)
    for awk in filter(shutil.which, ("gawk", "mawk")):
        for name, program in (
            ("print", "{ print $1 * 1, $2 * 1, $3 * 1 }"),
            ("printf", '{ printf "%12.5f %12.5f %12.5f\\n", $1, $2, $3 }'),
        ):
            out = subprocess.run([awk, program], input=numbers.encode(), capture_output=True)
            (HERE / f"{awk}-{name}.txt").write_bytes(out.stdout)


def by_excel():
    """As Excel for Windows writes: a byte order mark, CRLF, and the signs of the locale."""
    rows = [(*NAMES, "label")]
    rows += [
        (*map("{:.15g}".format, row), label) for row, label in zip(LOGITS, LABELS, strict=True)
    ]
    rows[2] = (rows[2][0].replace("1e-05", "0.00001"), *rows[2][1:])
    english = "".join(",".join(row) + "\r\n" for row in rows)
    german = "".join(";".join(row).replace(".", ",") + "\r\n" for row in rows)
    (HERE / "excel.csv").write_bytes(english.encode("utf-8-sig"))
    (HERE / "excel-german.csv").write_bytes(german.encode("utf-8-sig"))
    (HERE / "excel-unicode.txt").write_bytes(english.replace(",", "\t").encode("utf-16"))


if __name__ == "__main__":
    for library, make in (("pandas", by_pandas), ("polars", by_polars), ("duckdb", by_duckdb)):
        try:
            make(importlib.import_module(library))
        except ImportError as error:
            sys.stderr.write(f"left out: {error}\n")
    for program, make in (("Rscript", by_r), ("soffice", by_libreoffice), ("gawk", by_awk)):
        if shutil.which(program):
            make()
    by_excel()
