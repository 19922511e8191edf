"""What the words of a vocabulary say to a yes-or-no question, so that every rate counts alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import (
    NOT_CONTACTED,
    Action,
    DaneState,
    DnsSecurity,
    DomainShare,
    FeatureState,
    HopTls,
    MxState,
    Obstacle,
    PkixState,
    RequireTls,
    SecuredBy,
    SessionOutcome,
    StsMode,
    StsPolicyState,
    StsRecordState,
    TlsaState,
    TlsLevel,
    TlsOutcome,
    TlsrptState,
    Told,
)
from rtls_analysis.schema import TABLES, Prospect
from rtls_analysis.verdicts import Answer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd


def one_of(name: str, value: str, words: Iterable[str]) -> str:
    """Give back a word that a caller chose, or say in one line which there are.

    >>> one_of("rule", "some", ["any", "all"])
    Traceback (most recent call last):
    ...
    ValueError: rule is 'some'; give any, all
    """
    known = list(map(str, words))
    if value not in known:
        raise ValueError(f"{name} is {value!r}; give {', '.join(known)}")
    return value


class Said(IntEnum):
    """What one row says to the question."""

    NOT_APPLICABLE = 0  # also where the value is missing
    NO = 1
    YES = 2
    UNKNOWN = 3  # tried, no conclusion
    NOT_TESTED = 4  # by our choice, or our resolver is not trusted


@dataclass(frozen=True, slots=True)
class Roles:
    """What the words of a vocabulary say; those not named here are a no."""

    yes: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    not_tested: frozenset[str] = frozenset()
    not_applicable: frozenset[str] = frozenset()


def _roles(
    yes: Collection[str],
    unknown: Collection[str] = (),
    not_tested: Collection[str] = (),
    not_applicable: Collection[str] = (),
) -> Roles:
    return Roles(*(frozenset(map(str, words)) for words in (yes, unknown, not_tested, not_applicable)))


_CONTACTED = [word for word in SessionOutcome if word not in NOT_CONTACTED]
_POLICY = StsPolicyState

ROLES: Mapping[type[StrEnum], Roles] = {
    DomainShare: _roles(
        (DomainShare.ALL, DomainShare.SOME),
        (DomainShare.UNKNOWN,),
        (DomainShare.NOT_TESTED,),
        (DomainShare.NOT_APPLICABLE,),
    ),
    FeatureState: _roles((FeatureState.YES,), (FeatureState.UNKNOWN,), (FeatureState.NOT_TESTED,)),
    Answer: _roles((Answer.YES,), (Answer.UNKNOWN,), (Answer.NOT_TESTED, Answer.LEFT_OUT)),
    Told: _roles((Told.YES,), (Told.UNKNOWN,)),
    PkixState: _roles((PkixState.VALID,), (), (PkixState.NOT_TESTED,)),
    DaneState: _roles((DaneState.MATCH,), (DaneState.ERROR,), (DaneState.NOT_TESTED,)),
    TlsaState: _roles((TlsaState.USABLE,), (TlsaState.ERROR,), (TlsaState.NOT_TESTED,)),
    DnsSecurity: _roles((DnsSecurity.SECURE,), (DnsSecurity.ERROR,), (DnsSecurity.NOT_TESTED,)),
    MxState: _roles(
        (MxState.MX, MxState.IMPLICIT_MX, MxState.MX_IS_CNAME), (MxState.DNS_FAILURE,), (MxState.BAD_NAME,)
    ),
    SecuredBy: _roles((SecuredBy.DNSSEC, SecuredBy.MTA_STS, SecuredBy.IMPLICIT_MX), (SecuredBy.UNKNOWN,)),
    StsRecordState: _roles(
        (StsRecordState.VALID,), (StsRecordState.DNS_FAILURE,), (StsRecordState.NOT_TESTED,)
    ),
    # a policy that could not be had is untold, one served wrongly is none, as for a sender (RFC 8461 §3.3)
    StsPolicyState: _roles(
        (_POLICY.VALID,),
        (
            _POLICY.DNS_FAILURE,
            _POLICY.NO_ADDRESS,
            _POLICY.CONNECT_FAILED,
            _POLICY.TIMEOUT,
            _POLICY.TLS_FAILED,
        ),
        (_POLICY.ADDRESS_REFUSED, _POLICY.NOT_TESTED),
    ),
    StsMode: _roles((StsMode.ENFORCE,)),
    TlsrptState: _roles((TlsrptState.VALID,), (TlsrptState.DNS_FAILURE,), (TlsrptState.NOT_TESTED,)),
    SessionOutcome: _roles(
        (SessionOutcome.COMPLETED,),
        [w for w in _CONTACTED if w not in (SessionOutcome.COMPLETED, SessionOutcome.TLS_FAILED)],
        NOT_CONTACTED,
    ),
    Obstacle: _roles(
        (Obstacle.NONE,),
        (Obstacle.DNS_ERROR, Obstacle.UNREACHABLE, Obstacle.UNKNOWN),
        (),
        (Obstacle.NO_MX,),
    ),
    Action: _roles((Action.DELIVERED, Action.RELAYED, Action.EXPANDED), (Action.DELAYED,)),
    TlsLevel: _roles(set(TlsLevel) - {TlsLevel.NONE, TlsLevel.UNKNOWN}, (TlsLevel.UNKNOWN,)),
    HopTls: _roles(set(HopTls) - {HopTls.NONE, HopTls.UNKNOWN}, (HopTls.UNKNOWN,)),
    RequireTls: _roles(
        (RequireTls.SENT,), (RequireTls.UNDECIDED, RequireTls.UNKNOWN), (), (RequireTls.NOT_REQUESTED,)
    ),
    Prospect: _roles((Prospect.DELIVERED, Prospect.AT_RISK), (Prospect.UNKNOWN,)),
    TlsOutcome: _roles((TlsOutcome.OK,), (TlsOutcome.UNKNOWN,), (), (TlsOutcome.NOT_TLS,)),
}
"""What each vocabulary's words say where a caller names none; `some` is a yes, of one address at least."""

_ANY_WORDS = _roles((), ("unknown",), ("not_tested",), ("not_applicable",))


def roles_of(values: pd.Series[Any]) -> Roles | None:
    """Find what the words of a column say, by its vocabulary; None where it has none that is known."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        words = {str(word) for word in values.cat.categories}
    else:
        words = {str(word) for word in values.dropna().unique()}
    name = str(values.name)
    own = [table[name].words for table in TABLES.values() if name in table.by_name]
    known = [vocabulary for vocabulary in (*own, *ROLES) if vocabulary is not None and vocabulary in ROLES]
    exact = [vocabulary for vocabulary in known if {str(word) for word in vocabulary} == words]
    wider = [vocabulary for vocabulary in known if {str(word) for word in vocabulary} >= words]
    found = exact or wider
    return ROLES[found[0]] if found else None


@dataclass(frozen=True, slots=True)
class Answers:
    """What each row of a column says, as a number of `Said`, and the words that were taken for a yes."""

    said: npt.NDArray[np.int8]
    yes: tuple[str, ...]

    def where(self, what: Said) -> npt.NDArray[np.bool_]:
        """Tell which rows say this."""
        import numpy as np

        return np.equal(self.said, what)


def answers(
    values: pd.Series[Any],
    yes: str | Collection[Any] | None = None,
    unknown: Collection[str] | None = None,
    not_tested: Collection[str] | None = None,
) -> Answers:
    """Read a column as answers: flags by themselves, words by their vocabulary, or as the caller says.

    A missing value does not apply. The words of a vocabulary that are named nowhere are a no.

    Raises
    ------
    ValueError
        No word is known to be a yes, or one that was named is no word of the column.
    """
    import numpy as np
    import pandas as pd
    from pandas.api.types import is_bool_dtype

    is_flag = is_bool_dtype(values.dtype) and not isinstance(values.dtype, pd.CategoricalDtype)
    roles = Roles(frozenset({"True"})) if is_flag else roles_of(values) or _ANY_WORDS
    wanted = roles.yes if yes is None else frozenset([str(yes)] if isinstance(yes, str) else map(str, yes))
    if not wanted:
        raise ValueError(f"which words of {values.name} count? give yes=, one word or several")
    if isinstance(values.dtype, pd.CategoricalDtype):
        known = [str(word) for word in values.cat.categories]
        if strange := sorted(wanted - set(known)):
            raise ValueError(
                f"{values.name} has no word {', '.join(strange)}; it has {', '.join(filter(None, known))}"
            )
    meanings = [
        (wanted, Said.YES),
        (roles.unknown if unknown is None else frozenset(map(str, unknown)), Said.UNKNOWN),
        (roles.not_tested if not_tested is None else frozenset(map(str, not_tested)), Said.NOT_TESTED),
        (roles.not_applicable, Said.NOT_APPLICABLE),
    ]
    codes, found = pd.factorize(values)
    of_word = [next((said for words, said in meanings if str(word) in words), Said.NO) for word in found]
    table = np.array([*of_word, Said.NOT_APPLICABLE], dtype="int8")  # a missing value has the code -1
    return Answers(table[codes], tuple(sorted(wanted)))
