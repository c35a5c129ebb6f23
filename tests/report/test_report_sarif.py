"""The SARIF document: what the standard requires, and that it says what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from report_runs import HEALTHY, SICK

from wellfit.report.sarif import Diagnosed, artifact_uri, sarif_document

HOME = Path("/ci/project")
ATTACK = "a\x1b[31m\u202e</script>"


def document(*runs: Diagnosed, **more: Any) -> dict[str, Any]:
    made = sarif_document(runs, version="1.2.3", home=HOME, **more)
    return json.loads(json.dumps(made, allow_nan=False))


def test_it_has_what_the_standard_requires() -> None:
    """The properties that SARIF 2.1.0 calls required, and its ranges of values.

    Break tried: `"results"` left out of the run; `"level": "info"`; `ruleIndex` from 1.
    """
    made = document(
        Diagnosed("logs/a.json", "a", SICK),
        Diagnosed("logs/b.json", "b", HEALTHY),
        kinds=["plateau"],
    )
    assert made["version"] == "2.1.0"
    assert made["$schema"].startswith("https://") and made["$schema"].endswith("2.1.0.json")
    (run,) = made["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "wellfit"
    assert driver["version"] == driver["semanticVersion"] == "1.2.3"
    ids = [rule["id"] for rule in driver["rules"]]
    assert ids == sorted(set(ids)) == ["loss_spike", "no_validation", "non_finite", "plateau"]
    for rule in driver["rules"]:
        assert set(rule) == {"id", "name", "shortDescription", "help"}
        assert rule["name"].isidentifier()
        assert rule["shortDescription"]["text"] and rule["help"]["text"]
    assert len(run["results"]) == 3
    for result in run["results"]:
        assert result["message"]["text"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert ids[result["ruleIndex"]] == result["ruleId"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "logs/a.json"
        assert place["region"]["startLine"] >= 1
    assert run["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]


def test_a_result_holds_the_finding() -> None:
    """Break tried: levels swapped; evidence left out of the message; causes left out."""
    results = document(Diagnosed("a.json", "run-7", SICK))["runs"][0]["results"]
    assert [(r["ruleId"], r["level"]) for r in results] == [
        ("non_finite", "error"),
        ("loss_spike", "warning"),
        ("no_validation", "note"),
    ]
    worst = results[0]
    text = worst["message"]["text"]
    parts = (
        "run-7: The numbers broke (NaN or infinity) at step 300.",
        "The gradient norm rose from 0.8 to 412",
        "Change: Go back to the checkpoint before step 300",
    )
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert worst["properties"]["certainty"] == "certain"
    assert worst["properties"]["since_step"] == 300
    assert worst["properties"]["causes"][0]["id"] == "O01"
    assert worst["properties"]["run"] == "run-7"


def test_steps_are_called_what_the_log_counts() -> None:
    """Break tried: `since_words(finding)` without the axis."""
    made = document(Diagnosed("a.csv", "a", SICK, axis="epoch"))
    assert "at epoch 300." in made["runs"][0]["results"][0]["message"]["text"]


def test_what_could_not_be_read_is_a_notification() -> None:
    """Break tried: `executionSuccessful` always true."""
    made = document(unreadable=[("logs/torn.json", "it is not JSON")])
    (invocation,) = made["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is False
    (told,) = invocation["toolExecutionNotifications"]
    assert told["level"] == "error" and told["message"]["text"] == "it is not JSON"
    assert "logs/torn.json" in json.dumps(told["locations"])
    assert made["runs"][0]["results"] == []


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("logs/a b%.json", "logs/a%20b%25.json"),
        ("/ci/project/logs/ä.csv", "logs/%C3%A4.csv"),
        ("../other/a.json", "../other/a.json"),
        ("/var/a.json", "file:///var/a.json"),
        ("run:2/log.txt", "run%3A2/log.txt"),
        ("odd\udcff.log", "odd%FF.log"),
        ("-", "stdin"),
    ],
)
def test_paths_become_uris(path: str, uri: str) -> None:
    """Break tried: the path itself in place of `_quoted`."""
    assert artifact_uri(path, HOME) == uri
    assert uri.isascii() and " " not in uri
    assert unquote(uri)


def test_texts_from_a_log_carry_no_control_characters() -> None:
    """Break tried: `_text` returns its argument."""
    finding = {"kind": ATTACK, "severity": "critical", "evidence": [ATTACK], "change": None}
    made = document(Diagnosed("a", ATTACK, {"findings": [finding]}))
    text = made["runs"][0]["results"][0]["message"]["text"]
    assert "\x1b" not in text and "\u202e" not in text
