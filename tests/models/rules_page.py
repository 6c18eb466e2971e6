"""``python -m tests.models.rules_page`` writes docs/rules.md: every rule, what it says, and a model where it fires."""

from __future__ import annotations

from pathlib import Path

from epkit.cli._rules import all_rules

from .test_rules_on_models import ASKED, FETCHED, KEPT, MADE, OTHER_SIZES

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"

HEAD = """# The optimiser's rules

What each rule states, and a model on which it fires, as a tool wrote it (`tests/models/test_rules_on_models.py` checks all
of them). `python -m tests.models.rules_page` writes this page. How rules work, and what is not recognised, is in
[optimiser.md](optimiser.md); `epkit explain MODEL --rules` lists what they do to a model.

"""

TAIL = """
Rules of blocks of 8, 16 and 32 are those of blocks of 4 with another number, and are proven as these on random instances.

¹ A model of a package, which the tests fetch. ² Exported by torch when the slow tests run. ³ For a provider that asks for
it: others come first where all rules are tried.
"""


def page() -> str:
    """The page as it should be."""
    seen: dict[str, str] = {}
    for models, mark in ((KEPT, ""), (FETCHED, "¹"), (MADE, "²"), (ASKED, "³")):
        for model, rules in models.items():
            seen |= {rule: f"{model.split('/')[0]}{mark}" for rule in rules}
    lines: list[str] = []
    for level in ("basic", "extended", "all"):
        lines += [f"## {level}", "", "| rule | states | fires on |", "|---|---|---|"]
        lines += [
            f"| `{row['name']}` | {row['says'].replace('|', chr(92) + '|')} | {seen[row['name']]} |"
            for row in all_rules()
            if row["level"] == level
            and row["kind"] != "pass"
            and row["name"] not in OTHER_SIZES
            and not any(line.startswith(f"| `{row['name']}`") for line in lines)
        ]
        lines.append("")
    return HEAD + "\n".join(lines).rstrip() + "\n" + TAIL


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
