"""The contracts of every plugin, by textgen's own suites."""

import textgen_series

from textgen.testing import check, check_plugin


def test_all_three_keep_their_contracts():
    outcomes = check_plugin(textgen_series)
    skipped = {outcome.reason for outcome in outcomes if outcome.status == "skipped"}
    assert all(reason.startswith("no ") for reason in skipped), (
        skipped
    )  # the two that follow have what was missing


def test_a_csv_column_keeps_the_contract_of_corpora(tmp_path):
    (tmp_path / "tide.csv").write_text(
        "hour,level\n" + "".join(f"{i},{i / 7}\n" for i in range(500)), encoding="utf-8"
    )
    (component,) = textgen_series.textgen_corpora()
    options = {"path": str(tmp_path / "tide.csv"), "column": "level"}
    assert {outcome.status for outcome in check("corpus", component, options=options)} == {"ok"}
