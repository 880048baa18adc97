"""The report of an evaluation: one page that needs no other file, a Markdown table, figures.

OUT/report.html    curves, tables, confusions, worst utterances, speed, how to repeat it
OUT/report.md      the tables, for a README
OUT/figures/       PNG and PDF
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsr.evaluation.compare import require_comparable
from avsr.evaluation.figures import check_matplotlib, curves_of, lips_figure, noise_figure, picture_figure, render
from avsr.evaluation.job import Evaluation
from avsr.evaluation.measure_tables import measure
from avsr.evaluation.page import Page, html_page, subject_of, title_of
from avsr.evaluation.results import Results
from avsr.evaluation.tables import level_table, markdown, noise_table, score_table, time_table
from avsr.files import write_bytes, write_text

HTML_NAME, MARKDOWN_NAME = "report.html", "report.md"

check_report_packages = check_matplotlib


def write_report(
    folder: Path, results: Results, *, beside: Sequence[Results] = (), media: Evaluation | None = None
) -> str:
    """Write the page, the Markdown and the figures; returns the first table in Markdown.

    folder: of the evaluation, with its noise plan.
    beside: other evaluations of the same utterances, shown in the same tables and figures.
    media: where the sound and lips of the worst utterances come from; None leaves them out of the page.
    Raises DataError if the other evaluations have other utterances or another normaliser.
    """
    for other in beside:
        require_comparable(results, other)
    curves = curves_of(results, beside)
    figures = {"wer-snr": noise_figure(curves)}
    by_picture = picture_figure(results)
    if by_picture is not None:
        figures["wer-picture"] = by_picture
    measures = measure(results)
    if measures.by_level:
        figures["lips-effect"] = lips_figure(measures.by_level)
    images = {}
    for name, figure in figures.items():
        images[name] = render(figure, "png")
        write_bytes(folder / "figures" / f"{name}.png", images[name])
        write_bytes(folder / "figures" / f"{name}.pdf", render(figure, "pdf"))
    by_level, by_noise = level_table(curves), noise_table(curves)
    lines = [f"# {title_of(results)}", "", subject_of(results), "", markdown(by_level), ""]
    lines += ["By kind of noise, with intact lips:", "", markdown(by_noise), ""]
    lines += ["All scores, in clean sound with intact lips:", "", markdown(score_table(curves)), ""]
    more = {
        "Lips helped, changed nothing, hurt:": measures.lips,
        "The same by condition of the lips:": measures.lips_by_picture,
        "By person:": measures.people,
        "Word times:": time_table(results),
    }
    for title, table in more.items():
        lines += [] if table is None else [title, "", markdown(table), ""]
    write_text(folder / MARKDOWN_NAME, "\n".join(lines))
    page = Page(results, curves, images, by_level, by_noise, measures, media, folder)
    write_text(folder / HTML_NAME, html_page(page))
    return markdown(by_level) + "\n"
