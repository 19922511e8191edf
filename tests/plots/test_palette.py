"""Every word has a colour, and colours that stand side by side are told apart, also by colour-blind readers."""

from __future__ import annotations

from enum import StrEnum
from itertools import combinations

import numpy as np
import pytest

from rtls_analysis import outcomes
from rtls_analysis.analysis.readiness import NOT_TESTED
from rtls_analysis.plots.palette import (
    HATCHES,
    OBSTACLES,
    REMAINING,
    WORDS,
    bar_style,
    colour_of,
    colours_of,
    readable_on,
)
from rtls_analysis.schema import Prospect, TlsVersion

SEEN_BY = {  # what a reader's eye makes of linear RGB (Machado, Oliveira and Fernandes, 2009)
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}  # fmt: skip
XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE = (0.95047, 1.0, 1.08883)
APART = 12  # CIELAB; what a careful look tells apart is about 2.3


def _lab(colour: str, eye: str) -> np.ndarray:
    """A colour as an eye sees it, in CIELAB (D65)."""
    values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SEEN_BY[eye]) @ linear, 0, 1)
    x, y, z = (
        np.cbrt(value) if value > 216 / 24389 else (24389 / 27 * value + 16) / 116
        for value in np.array(XYZ) @ seen / WHITE
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


SIDE_BY_SIDE: dict[str, list[str]] = {
    "obstacles": [*map(str, outcomes.Obstacle), NOT_TESTED],
    "shares": list(map(str, outcomes.DomainShare)),
    "features": list(map(str, outcomes.FeatureState)),
    "wishes": list(map(str, outcomes.RequireTls)),
    "levels": list(map(str, outcomes.TlsLevel)),
    "versions": list(map(str, TlsVersion)),
    "actions": list(map(str, outcomes.Action)),
    "prospects": list(map(str, Prospect)),
    "changes": ["gained", "lost", "kept"],
}


@pytest.mark.parametrize("eye", SEEN_BY)
@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_colours_side_by_side(name: str, eye: str) -> None:
    """Two words of one plot differ in colour, or in hatch where neither is a conclusion."""
    for one, other in combinations(SIDE_BY_SIDE[name], 2):
        if HATCHES.get(one) or HATCHES.get(other):
            continue
        distance = float(np.linalg.norm(_lab(WORDS[one], eye) - _lab(WORDS[other], eye)))
        assert distance >= APART, (one, other, round(distance, 1))


VOCABULARIES = [
    vocabulary
    for name in outcomes.__all__
    if isinstance(vocabulary := getattr(outcomes, name), type) and issubclass(vocabulary, StrEnum)
]
UNDRAWN = {"DnsStatus", "Purpose", "SessionStage", "SumsDiffer", "HopTls"}


@pytest.mark.parametrize(
    "vocabulary", [v for v in VOCABULARIES if v.__name__ not in UNDRAWN], ids=lambda v: v.__name__
)
def test_every_word_has_its_colour(vocabulary: type[StrEnum]) -> None:
    """The same one everywhere, since it goes by the word."""
    for word in vocabulary:
        assert str(word) in WORDS
        assert colour_of(word) == WORDS[str(word)]
    assert {str(obstacle) for obstacle in OBSTACLES} == {str(obstacle) for obstacle in outcomes.Obstacle}


def test_what_could_not_be_told_is_never_a_colour() -> None:
    """Unknown and not tested are grey and hatched, each in its own way, and unlike a no."""
    for word in ("unknown", "not_tested", "unreachable", "dns_error", "timeout", "not_applicable"):
        red, green, blue = (int(WORDS[word][place : place + 2], 16) for place in (1, 3, 5))
        assert red == green == blue, word
    assert bar_style("unknown")["hatch"] != bar_style("not_tested")["hatch"]
    assert bar_style("unknown")["hatch"]
    assert bar_style("not_tested")["hatch"]
    assert bar_style("none")["hatch"] is None


def test_a_word_of_nobody_keeps_its_colour() -> None:
    """Open words get one of a few colours, the same one each time; several of them, colours in turn."""
    assert colour_of("provider.example") == colour_of("provider.example")
    turns = colours_of(["a.example", "b.example", "unknown", "a.example"])
    assert turns["unknown"] == WORDS["unknown"]
    assert turns["a.example"] != turns["b.example"]


@pytest.mark.parametrize("colour", sorted({*WORDS.values(), REMAINING}))
def test_text_on_a_colour_can_be_read(colour: str) -> None:
    """Black or white: the contrast is at least 4.5 to 1 (WCAG 2.2, AA), or nearly so."""
    values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    luminance = float(np.array(XYZ)[1] @ linear)
    contrast = (luminance + 0.05) / 0.05 if readable_on(colour) == "black" else 1.05 / (luminance + 0.05)
    assert contrast >= 4.4
