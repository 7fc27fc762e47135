from pathlib import Path

from alliage.geometry.surveying.metrics import METRICS

PAGE = Path(__file__).parents[3] / "docs" / "geometry.md"


def test_the_page_has_every_metric_as_it_is_declared():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    expected = []
    for name, metric in METRICS.items():
        reads = f"i {metric.link} j" if metric.directed else ""
        definition = metric.definition.replace("|", "&#124;")
        expected.append(
            f"| `{name}` | {metric.unit} | {reads} | {metric.by_chance} | {definition} |"
        )
    assert lines == expected
