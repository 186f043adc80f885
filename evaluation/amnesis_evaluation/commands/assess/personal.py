"""Kinds of personal data in a text, by Presidio's patterns; nothing is downloaded for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amnesis.errors import ModelError, first_line

NO_PRESIDIO = "kinds of personal data were not marked: pip install 'amnesis[pii]'"
NO_NAMES = (
    "names of people, places and organisations were not marked: no pattern tells them, a language "
    "model of spaCy does (python -m spacy download en_core_web_sm, then --names en_core_web_sm)"
)
# Below it a pattern is any number of so many digits. An address on the web is nobody's yet.
SURE = 0.4
_NOT_PERSONAL = {"URL", "UUID"}
# What spaCy's models, which have two schemes of labels, call the kinds that Presidio names.
_NAMED = {
    "PERSON": "person",
    "PER": "person",
    "GPE": "location",
    "LOC": "location",
    "FAC": "location",
    "ORG": "organization",
    "NORP": "nrp",
}


@dataclass(frozen=True)
class Finder:
    """Finds the kinds of personal data in a text.

    ``recognizers`` know patterns such as those of telephone and account numbers; ``names``, where
    there is one, is a spaCy pipeline that knows names.
    """

    recognizers: tuple[Any, ...]  # of Presidio
    names: Callable[[str], Any] | None = None

    def kinds(self, text: str) -> tuple[str, ...]:
        """Return the kinds in a text, such as ``email_address``, in the order of the alphabet."""
        found = {
            result.entity_type.lower()
            for recognizer in self.recognizers
            for result in recognizer.analyze(text, recognizer.supported_entities, None) or ()
            if result.score >= SURE
        }
        entities = () if self.names is None else self.names(text).ents
        named = {_NAMED[entity.label_] for entity in entities if entity.label_ in _NAMED}
        return tuple(sorted(found | named))


def finder(names: str | None = None) -> Finder | None:
    """Return the finder; None where Presidio is not installed.

    ``names`` is the name or folder of a spaCy model that is installed here.

    Raises:
        ModelError: there is no such spaCy model, or Presidio, which brings spaCy, is missing.
    """
    try:
        from presidio_analyzer import PatternRecognizer, RecognizerRegistry
        from presidio_analyzer.predefined_recognizers import PhoneRecognizer
    except ImportError:
        if names is not None:
            raise ModelError(
                "--names needs spaCy, which comes with: pip install 'amnesis[pii]'"
            ) from None
        return None
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    email = _offline_email()
    return Finder(
        (
            *(
                one
                for one in registry.recognizers
                if isinstance(one, PatternRecognizer | PhoneRecognizer)
                and not isinstance(email, type(one))
                and not _NOT_PERSONAL & set(one.supported_entities)
            ),
            email,
        ),
        None if names is None else _pipeline(names),
    )


def _offline_email() -> Any:
    """Return Presidio's recognizer of addresses, which would fetch the list of public suffixes.

    Of that list tldextract has a copy, which serves here.
    """
    from presidio_analyzer.predefined_recognizers import EmailRecognizer
    from tldextract import TLDExtract

    extract = TLDExtract(suffix_list_urls=(), cache_dir=None)

    def validate_result(_: Any, text: str) -> bool:
        return bool(extract(text).fqdn)

    return type("OfflineEmail", (EmailRecognizer,), {"validate_result": validate_result})()


def _pipeline(names: str) -> Callable[[str], Any]:
    import spacy

    try:
        pipeline: Callable[[str], Any] = spacy.load(names)
    except OSError as error:
        raise ModelError(
            f"--names {names}: there is no such spaCy model here ({first_line(error)[:120]}); get "
            f"one: python -m spacy download en_core_web_sm"
        ) from None
    return pipeline
