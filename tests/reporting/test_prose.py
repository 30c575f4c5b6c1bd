"""Sentences on a page: real minus signs, commands as code, and nothing of a stranger's name as markup."""

from featstore.reporting.page.report import prose


def test_a_command_is_code_and_keeps_its_hyphens():
    told = prose("Difference -0.045; `featstore compare DATA --folds -1` <")
    assert told == (
        'Difference \N{MINUS SIGN}0.045; <code class="command">featstore compare DATA --folds -1</code> &lt;'
    )


def test_names_of_strangers_are_text():
    told = prose("Look at `<script>x</script>` and <b>\x1b[2J</b>")
    assert "<script>" not in told
    assert "<b>" not in told
    assert "\x1b" not in told
    assert prose("one ` alone -1") == "one ` alone \N{MINUS SIGN}1"
