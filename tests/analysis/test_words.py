"""Every vocabulary has a reading as answers, and none of its words says two things."""

from __future__ import annotations

from enum import StrEnum

import pandas as pd
import pytest

from rtls_analysis import outcomes
from rtls_analysis.analysis.words import ROLES, Said, answers, roles_of
from rtls_analysis.schema import TABLES, Kind
from rtls_analysis.verdicts import Answer

WORDLESS = {"DnsStatus", "Purpose", "SessionStage", "SumsDiffer"}
"""Vocabularies of `outcomes` none of whose words is a yes by itself: a caller has to say which count."""

SAYINGS = [  # vocabulary, word, what it says
    (outcomes.DomainShare, "some", Said.YES),
    (outcomes.DomainShare, "none", Said.NO),
    (outcomes.DomainShare, "unknown", Said.UNKNOWN),
    (outcomes.DomainShare, "not_tested", Said.NOT_TESTED),
    (outcomes.DomainShare, "not_applicable", Said.NOT_APPLICABLE),
    (outcomes.FeatureState, "failed", Said.NO),
    (outcomes.PkixState, "expired", Said.NO),
    (outcomes.PkixState, "not_tested", Said.NOT_TESTED),
    (outcomes.DaneState, "none", Said.NO),
    (outcomes.DaneState, "error", Said.UNKNOWN),
    (outcomes.SessionOutcome, "timeout", Said.UNKNOWN),
    (outcomes.SessionOutcome, "blocked", Said.UNKNOWN),
    (outcomes.SessionOutcome, "tls_failed", Said.NO),
    (outcomes.SessionOutcome, "opted_out", Said.NOT_TESTED),
    (outcomes.StsPolicyState, "redirect", Said.NO),
    (outcomes.StsPolicyState, "timeout", Said.UNKNOWN),
    (outcomes.Obstacle, "", Said.YES),
    (outcomes.Obstacle, "no_mx", Said.NOT_APPLICABLE),
    (outcomes.Obstacle, "unreachable", Said.UNKNOWN),
    (outcomes.Obstacle, "no_starttls", Said.NO),
    (outcomes.RequireTls, "not_requested", Said.NOT_APPLICABLE),
    (outcomes.RequireTls, "sent_unauthenticated", Said.NO),
    (Answer, "left_out", Said.NOT_TESTED),
]


def _column(vocabulary: type[StrEnum], words: list[str]) -> pd.Series:
    return pd.Series(pd.Categorical(words, categories=[str(word) for word in vocabulary]))


@pytest.mark.parametrize(("vocabulary", "word", "said"), SAYINGS)
def test_what_a_word_says(vocabulary: type[StrEnum], word: str, said: Said) -> None:
    """A limit, a block, a time-out is never a no; what was left out never an unknown."""
    assert answers(_column(vocabulary, [word])).said.tolist() == [said]


@pytest.mark.parametrize("vocabulary", ROLES, ids=lambda vocabulary: vocabulary.__name__)
def test_roles_are_words_and_each_has_one(vocabulary: type[StrEnum]) -> None:
    """A role names words of its vocabulary only, and none twice; there is a yes."""
    roles = ROLES[vocabulary]
    sets = [roles.yes, roles.unknown, roles.not_tested, roles.not_applicable]
    named = [word for words in sets for word in words]
    assert set(named) <= {str(word) for word in vocabulary}
    assert len(named) == len(set(named))
    assert roles.yes


def test_every_column_of_words_is_known() -> None:
    """Each word column of each table is read by its own vocabulary, or says that it needs `yes=`."""
    for table in TABLES.values():
        for column in table.columns:
            if column.kind is not Kind.WORD:
                continue
            assert column.words is not None
            values = pd.Series([], dtype=column.dtype, name=column.name)
            if column.words not in ROLES:
                with pytest.raises(ValueError, match=f"which words of {column.name} count"):
                    answers(values)
            else:
                assert roles_of(values) == ROLES[column.words], column.name


def test_every_vocabulary_of_outcomes_is_read() -> None:
    """But for those that answer nothing."""
    vocabularies = [value for name in outcomes.__all__ if isinstance(value := getattr(outcomes, name), type)]
    assert {v.__name__ for v in vocabularies if issubclass(v, StrEnum) and v not in ROLES} == WORDLESS


def test_texts_are_read_like_words() -> None:
    """A table that comes from CSV has texts for words: the column's name tells their vocabulary."""
    texts = pd.Series(["all", "unknown", None, "none"], name="starttls")
    assert answers(texts).said.tolist() == [Said.YES, Said.UNKNOWN, Said.NOT_APPLICABLE, Said.NO]


def test_flags_answer_by_themselves() -> None:
    """True and false; a missing flag does not apply."""
    flags = pd.Series([True, False, None], dtype="boolean", name="reused")
    assert answers(flags).said.tolist() == [Said.YES, Said.NO, Said.NOT_APPLICABLE]
    assert answers(pd.Series([True, False])).said.tolist() == [Said.YES, Said.NO]


def test_the_caller_may_say_what_counts() -> None:
    """`yes=`, `unknown=` and `not_tested=` take the place of the usual words; all others are a no."""
    shares = _column(outcomes.DomainShare, ["all", "some", "unknown", "not_tested"])
    assert answers(shares, yes="all").said.tolist() == [Said.YES, Said.NO, Said.UNKNOWN, Said.NOT_TESTED]
    found = answers(shares, yes=["all"], unknown=["some"], not_tested=[])
    assert found.said.tolist() == [Said.YES, Said.UNKNOWN, Said.NO, Said.NO]
    versions = pd.Series(["TLSv1.3", "TLSv1.2", None], name="tls_version")
    assert answers(versions, yes="TLSv1.3").said.tolist() == [Said.YES, Said.NO, Said.NOT_APPLICABLE]


def test_a_word_that_is_none_is_refused() -> None:
    """A misspelt word would count nobody, silently."""
    with pytest.raises(ValueError, match=r"has no word al; it has all, some, none"):
        answers(_column(outcomes.DomainShare, ["all"]), yes="al")
