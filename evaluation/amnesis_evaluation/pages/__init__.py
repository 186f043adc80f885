"""Pages: what was measured, for people, each in one file that needs neither network nor script.

``rendering`` makes a page of a template, ``numbers`` writes every number of every page, ``charts``
lays pictures out, ``samples`` chooses the rows that are shown. ``report`` is the page of a run; a
command's own page is with the command. All of them share one stylesheet, and one language: what
was wanted is blue and solid, damage is orange and hatched or dashed, in light and in dark. ``card``
is what of it goes with the model.
"""

import amnesis


@amnesis.hookimpl
def register_reports(register: amnesis.Register) -> None:
    """Register the report of a run, and the card of its model."""
    register(
        "html",
        "amnesis_evaluation.pages.report:HtmlReport",
        summary="the verdict, and everything on one page: report.html",
    )
    register(
        "model_card",
        "amnesis_evaluation.pages.card:ModelCard",
        summary="the model's card, as the hub shows it: model/README.md",
    )
