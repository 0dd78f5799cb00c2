"""The report: whole, safe, repeatable, and true to the outputs it is about."""

import doctest
import html.parser
import itertools
import re
from types import SimpleNamespace

import pytest
from report_world import HOSTILE, READS, make_run

from pipeline.config import build_from
from pipeline.evaluate.report import markup, wording
from pipeline.evaluate.report.curves import charts_of, thinned
from pipeline.evaluate.report.funnel import MOST_STEPS, funnel_of, steps_of
from pipeline.evaluate.report.graph import places_of, shortest_edges
from pipeline.evaluate.report.markup import joined, tag
from pipeline.evaluate.report.outputs import account_of, read_outputs, setting_of, training_of
from pipeline.evaluate.report.page import page_of
from pipeline.evaluate.report.summary import LINE_WIDTH, summary_of
from pipeline.stages.report import Report

VOID = {"meta", "path", "rect", "use", "br"}


class Nesting(html.parser.HTMLParser):
    """Finds tags that are not closed in order, and everything that would be loaded from outside."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.loads, self.ids = [], [], [], []

    def handle_starttag(self, name, attributes):
        self.seen.append(name)
        self.ids += [value for key, value in attributes if key == "id"]
        outside = [
            v for k, v in attributes if k in ("src", "srcset") or (name == "link" and k == "href")
        ]
        self.loads += outside
        if name != "meta":
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.seen.append(name)
        self.ids += [value for key, value in attributes if key == "id"]

    def handle_endtag(self, name):
        assert self.open.pop() == name


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(folders):
    return page_of(read_outputs(folders))


def parsed(page):
    nesting = Nesting()
    nesting.feed(page)
    assert nesting.open == []
    return nesting


def test_the_page_is_whole_and_loads_nothing(page):
    nesting = parsed(page)
    assert nesting.loads == []
    assert {"script", "link", "img", "iframe"} & set(nesting.seen) == set()
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    assert len(nesting.ids) == len(set(nesting.ids))


def test_what_comes_from_pages_is_escaped(page):
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;") == 7


def test_a_funnel_narrows_by_what_each_rule_takes():
    picture = funnel_of(
        account_of({"in": 200, "kept": 50, "dropped": {"a": 30, "b": 120}}), "pages"
    )
    parsed(picture)
    came, kept = (float(width) for width in re.findall(r'width="([\d.]+)"', picture))
    assert came == 4 * kept
    middles = re.findall(r'class="left" d="M([\d.]+) \d+ H([\d.]+) L([\d.]+)', picture)
    tops = [float(right) - float(left) for left, right, _ in middles]
    assert [top / came for top in tops] == pytest.approx([1.0, 0.4], abs=0.01)
    for text in ("came in", "200 (100.0 %)", "120 (60.0 %)", "30 (15.0 %)", "50 (25.0 %)"):
        assert f">{text}</text>" in picture
    many = [(f"r{n}", 100 - n) for n in range(40)]
    assert sum(count for _, count in steps_of(many)) == sum(count for _, count in many)
    assert len(steps_of(many)) == MOST_STEPS
    parsed(funnel_of(account_of({"in": 0, "kept": 0, "dropped": {}}), "pages"))


def test_the_corpus_is_shown_by_source_language_and_rule_with_examples(page):
    for text in (
        "&lt;news&gt;",
        "1,234 emails",
        "612 pages and 4.6 MB of input for each second of a core",
        "no end mark, lines (1 of 17,033)",
        "too few sentences, pages (2 of 260)",
        "https://example.org/l · a!b at 5",
        "the file holds 12 of 4096 bytes",
        "8,516",
        "77 of 900 documents were removed. Of 200 joined pairs",
        "2.5 % are less alike than 0.8",
        "alike to 0.91 · https://example.org/b",
        "Contamination: 13 words in a row",
        "quiz · quiz.jsonl:7",
    ):
        assert text in page


def test_every_stage_has_a_node_and_a_row(page):
    for name in READS:
        assert f'href="#stage-{name}"' in page
        assert f'id="stage-{name}"' in page


def test_runs_are_linked_on_their_server_or_on_the_local_one(page):
    links = re.findall(r'href="([^"]*runs[^"]*)"', page)
    assert links == [
        "https://mlflow.example.org/#/experiments/3/runs/77",
        "http://127.0.0.1:5000/#/experiments/3/runs/77",
        "http://127.0.0.1:5000/#/experiments/3/runs/77",
    ]
    assert "javascript" not in page


def test_the_same_outputs_give_the_same_page(folders, page):
    assert page_of(read_outputs(dict(reversed(folders.items())))) == page


def test_any_part_of_a_run_makes_a_page(folders):
    for name in folders:
        outputs = read_outputs({name: folders[name]})
        parsed(page_of(outputs))
        assert summary_of(outputs).endswith("\n")


def test_outputs_come_after_what_they_read(folders):
    names = [output.name for output in read_outputs(folders)]
    assert sorted(names) == sorted(READS)
    for name, reads in READS.items():
        assert all(names.index(one) < names.index(name) for one in reads)


def test_edges_leave_out_what_is_reached_through_another_input(folders):
    edges = shortest_edges(read_outputs(folders))
    assert edges["tokens"] == ("vocab",)
    assert edges["evaluate"] == ("theseus",)
    assert set(edges["finetune"]) == {"pretrain", "task"}


def test_nodes_do_not_overlap_and_arrows_point_right(folders):
    outputs = read_outputs(folders)
    edges = shortest_edges(outputs)
    places = places_of(outputs, edges)
    spots = [(place.x, place.y) for place in places.values()]
    assert len(spots) == len(set(spots))
    for name, ones in edges.items():
        assert all(places[one].x < places[name].x for one in ones)
    columns = {x: sorted(y for other, y in spots if other == x) for x, _ in spots}
    assert all(b - a >= 60 for ys in columns.values() for a, b in itertools.pairwise(ys))
    assert places["task"].x == places["pretrain"].x


def test_charts_and_figures_of_a_journal(folders):
    outputs = {output.name: output for output in read_outputs(folders)}
    charts = charts_of(outputs["theseus"].series())
    assert [chart.title for chart in charts] == ["Loss", "Accuracy", "Replaced"]
    assert list(charts[0].lines) == ["training", "held out: cross entropy"]
    training = training_of(outputs["pretrain"])
    assert training.steps == 400
    held_out = {name: (first, last) for name, first, last in training.held_out}
    assert held_out["mlm"][0] == pytest.approx(9.1)
    assert held_out["mlm"][1] < 5
    assert 4989 < training.tokens_per_second < 5011


def test_thinning_keeps_means():
    points = [(step, float(step)) for step in range(1000)]
    few = thinned(points, most=300)
    assert len(few) == 250
    assert few[0] == (1.5, 1.5)
    assert thinned(points[:10], most=300) == points[:10]


def test_reasons_are_sorted_by_how_often_they_apply():
    account = account_of({"in": 9, "kept": 1, "dropped": {"b": 3, "a": 3, "c": 2}})
    assert account.dropped == (("a", 3), ("b", 3), ("c", 2))


def test_markup_escapes_all_but_markup():
    inner = tag("b", "a & b")
    assert tag("p", inner, "<", title='"') == '<p title="&quot;"><b>a &amp; b</b>&lt;</p>'
    assert joined("<", None, inner) == "&lt;<b>a &amp; b</b>"


def test_the_summary_fits_a_terminal_and_holds_the_figures(folders):
    text = summary_of(read_outputs(folders))
    assert max(map(len, text.splitlines())) <= LINE_WIDTH + len(str(folders["export"]))
    rows = [line for line in text.splitlines() if "huggingface" not in line]
    assert max(map(len, rows)) <= LINE_WIDTH
    for figure in (
        "1,503 pages in, 1,101 kept, 402 dropped",
        "8,100 ids",
        "1,218,000 train tokens",
    ):
        assert figure in text
    assert re.search(
        r"theseus +79\.1 % \[77\.1, 81\.1\] +2 layers +2\.82 M +11\.3 MB +2\.17 ms", text
    )
    assert re.search(r"majority class +18\.3 %", text)
    assert "logits differ by at most 9.5e-07" in text
    assert str(folders["export"] / "huggingface") in text


def test_the_stage_writes_page_and_table_and_reads_all_others(folders, page, tmp_path):
    stage = build_from(Report, {"kind": "report"}, "test")
    counts = stage.run(SimpleNamespace(out=tmp_path, inputs=folders))
    assert counts == {"stages": len(folders), "bytes": (tmp_path / "report.html").stat().st_size}
    assert (tmp_path / "report.html").read_text() == page
    assert (tmp_path / "summary.txt").read_text() == summary_of(read_outputs(folders))
    assert stage.of == ()
    assert Report.reads_all


def test_examples_in_the_documentation_hold():
    for module in (markup, wording):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


def test_what_training_computed_in_is_said_and_a_missing_bf16_too():
    wished = {"asked_precision": "auto", "engine": "deepspeed", "world_size": 2}
    notes = [{"resumed_from_step": 3}, {"precision": "bf16", **wished}]
    assert setting_of(notes) == "bf16 on 2 processes"
    notes.append({"precision": "float32", **wished, "world_size": 1})
    assert setting_of(notes) == "float32 (no bf16 in this hardware) on 1 process"
    asked = {"precision": "float32", **wished, "asked_precision": "float32"}
    assert setting_of([asked]) == "float32 on 2 processes"
    assert setting_of([]) == ""
