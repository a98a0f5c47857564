"""Wall segments of the AHA 17-segment model that a report names for scar or for abnormal wall motion.

Cerqueira et al., Circulation 2002;105:539. Only definite segments: a wall without its level ("the lateral wall") names none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_I = re.IGNORECASE
_WALLS = {"anterior": 0, "anteroseptal": 1, "inferoseptal": 2, "inferior": 3, "inferolateral": 4, "anterolateral": 5}
_APICAL = {
    "anterior": 13,
    "anteroseptal": 14,
    "inferoseptal": 14,
    "septal": 14,
    "inferior": 15,
    "inferolateral": 16,
    "anterolateral": 16,
    "lateral": 16,
}
_TOKENS = re.compile(
    r"(?P<joined>(?P<jw1>antero|infero|postero|latero|septo)[- ]?(?P<jl1>basal|apical)|(?P<jl2>baso|apico)[- ]?(?P<jw2>anterior"
    r"|inferior|lateral|septal|posterior))\b"
    r"|(?P<span>\b(?:from\s+)?(?:base|basal)\s*(?:to|through to|-|–)\s*(?:the\s+)?(?:apex|apical)\b)"
    r"|(?P<every>\b(?:entire|whole|complete|full length of the)\b)"
    r"|(?P<level>\bbas(?:al|e)\b|\bmid(?:[- ]?(?:ventric\w+|cavity|cavitary|level|LV))?\b(?![- ]?(?:wall"
    r"|myocard|mural|septal wall))|\bapical\b|\bdistal\b|\bproximal\b)"
    r"|(?P<apex>\b(?:true )?apex\b|\bapical cap\b)"
    r"|(?P<wall>\b(?:antero[- ]?sept(?:al|um)|infero[- ]?sept(?:al|um)|antero[- ]?lateral|infero[- ]?lateral"
    r"|postero[- ]?lateral|anterior sept(?:al|um)|inferior sept(?:al|um)|"
    r"anterior|inferior|lateral|posterior|sept(?:al|um))\b)"
    r"|(?P<all>\ball\b|\bevery\b)",
    _I,
)
_NUMBERS = re.compile(
    r"\b(?:AHA\s*)?segments?\s*(?:nos?\.?|numbers?)?\s*((?:\d{1,2}(?:\s*(?:-|–|to)\s*\d{1,2})?(?:\s*(?:,\s*and"
    r"|,|and|&|/|\+)\s*)?)+)|\bAHA\s+((?:\d{1,2}(?:\s*(?:,\s*and|,|and|-|–)\s*)?)+)",
    _I,
)
_SCAR = re.compile(
    r"\b(?:scar\w*|LGE|(?:late|delayed)\s+(?:gadolinium\s+)?(?:hyper-?)?enhancement|enhancement|enhancing"
    r"|fibrosis|hyper-?enhancement|infarct(?:ed|ion|s)?|low voltage)\b",
    _I,
)
_MOTION = re.compile(
    r"\b(?:a-?kine\w+|hypo-?kine\w+|dys-?kine\w+|wall[- ]motion (?:abnormalit\w+|defects?)|RWMAs?|contract\w+ (?:poorly"
    r"|abnormal\w*)|thinned and (?:akinetic|hypokinetic)|aneurysmal)\b",
    _I,
)
_SPARED = re.compile(
    r"\b(?:spar(?:ing|es|ed)|except(?: for)?|apart from|other than|not involving|not affecting|preserved"
    r"|normal(?:ly)?(?! limits)|unaffected|viable|free of|without|no|not)\b[^,;.]*$",
    _I,
)
_SPARED_AFTER = re.compile(r"\s*:\s*(?:normal|no\b|none|nil|viable|spared|0\s*%)", _I)
_CONTINUES = re.compile(
    r"^\s*(?:it|this|these|they|both|involving|involves|located|affected|distribution|segments|extent|the latter|which|segments?\s+\d+)\b",
    _I,
)
_ALL_LEVELS = frozenset(("basal", "mid", "apical"))


@dataclass(frozen=True)
class Group:
    """Segments named together, with their place."""

    numbers: frozenset[int]
    start: int
    end: int


def find(text: str, sentences: list[tuple[int, int]]) -> Iterator[tuple[str, Group, tuple[int, int]]]:
    """Yield (topic, group, place of the topic's word): topic is scar or motion; spared segments and those without a topic are left out."""
    last: tuple[str, tuple[int, int]] | None = None
    for start, end in sentences:
        words = sorted(
            [(m.span(), "scar") for m in _SCAR.finditer(text, start, end)]
            + [(m.span(), "motion") for m in _MOTION.finditer(text, start, end)]
        )
        groups = list(_groups(text, start, end))
        if not words and last and groups and _CONTINUES.match(text[start:end]):
            words = [(last[1], last[0])]
        for group in groups:
            if not words or _SPARED.search(_since_word(text, start, group.start, words)) or _SPARED_AFTER.match(text[group.end : end]):
                continue
            (place, topic) = _topic(text, group, words)
            yield topic, group, place
        if words:
            last = (words[-1][1], words[-1][0])


def _since_word(text: str, start: int, at: int, words: list[tuple[tuple[int, int], str]]) -> str:
    """Text from the last topic word before `at` to there: what may spare the segments, not what negates the word itself."""
    before = [span[1] for span, _ in words if span[1] <= at]
    return text[before[-1] if before else at : at]


def _topic(text: str, group: Group, words: list[tuple[tuple[int, int], str]]) -> tuple[tuple[int, int], str]:
    """The word that a group belongs to: the last one before it, unless one follows more closely without a break."""
    before = [w for w in words if w[0][1] <= group.start]
    after = [w for w in words if w[0][0] >= group.end]
    if not before:
        return after[0] if after else words[0]
    if after:
        gap = text[group.end : after[0][0][0]]
        between = text[before[-1][0][1] : group.start]
        if len(gap) < 40 and not re.search(r"[,;:.]|\b(?:with|and)\b", gap) and re.search(r"[,;]|\b(?:and|with)\b", between):
            return after[0]
    return before[-1]


def _groups(text: str, start: int, end: int) -> Iterator[Group]:
    """Groups of segments of one sentence: by numbers where given, by levels and walls elsewhere."""
    numbered = [(m.span(), _numbers(m[1] or m[2])) for m in _NUMBERS.finditer(text, start, end)]
    numbered = [(span, numbers) for span, numbers in numbered if numbers]
    for span, numbers in numbered:
        yield Group(numbers, *span)
    named = list(_named(text, start, end))
    for group in named:
        # names with their numbers in brackets are said twice: the numbers are exact
        if not any(0 <= span[0] - group.end < 25 or 0 <= group.start - span[1] < 25 for span, _ in numbered):
            yield group


def _numbers(text: str) -> frozenset[int]:
    """Segment numbers of a list such as "4, 5, 10 and 11" or "7-9"; empty if one is not from 1 to 17."""
    found: set[int] = set()
    for low, high in re.findall(r"(\d{1,2})(?:\s*(?:-|–|to)\s*(\d{1,2}))?", text):
        found.update(range(int(low), int(high or low) + 1))
    return frozenset(found) if found and all(1 <= n <= 17 for n in found) else frozenset()


@dataclass
class _Part:
    """Levels and walls gathered so far for one group."""

    levels: list[str]
    walls: list[str]
    start: int
    end: int
    apex: bool = False
    every: bool = False

    def numbers(self) -> frozenset[int]:
        levels = set(self.levels) or (_ALL_LEVELS if self.every else set())
        found = {n for level in levels for wall in self.walls for n in _segments(level, wall)}
        return frozenset(found | ({17} if self.apex else set()))


def _named(text: str, start: int, end: int) -> Iterator[Group]:
    """Groups by name: levels then walls ("basal and mid inferior"), or walls then levels ("inferior wall from base to apex")."""
    part: _Part | None = None
    pending_all = False
    for match in _TOKENS.finditer(text, start, end):
        if part and (
            match.start() - part.end > 32
            or re.search(r"[;:.]|\b(?:with|but|sparing|except|without|thrombus|aneurysm)\b", text[part.end : match.start()], _I)
        ):
            yield Group(part.numbers(), part.start, part.end)
            part = None
        kind = match.lastgroup if not match["joined"] else "joined"
        if kind == "all":
            pending_all = True
            continue
        if part and part.walls and part.levels and (kind in ("level", "joined")) and not _levels_follow(text, match, end, part):
            yield Group(part.numbers(), part.start, part.end)
            part = None
        part = part or _Part([], [], match.start(), match.end())
        part.end = match.end()
        _take(part, match, kind, pending_all)
        pending_all = False
        if kind == "joined":
            yield Group(part.numbers(), part.start, part.end)
            part = None
    if part:
        yield Group(part.numbers(), part.start, part.end)


def _levels_follow(text: str, match: re.Match[str], end: int, part: _Part) -> bool:
    """True if a level after walls belongs to those walls, because no wall of its own follows."""
    rest = text[match.end() : min(end, match.end() + 40)]
    own = _TOKENS.search(rest)
    joined = re.fullmatch(r"\s*(?:,|and|,\s*and|to|&|/|-)\s*(?:the\s+)?", text[part.end : match.start()], _I)
    return not (own and own.lastgroup in ("wall", "level")) and (not part.levels or joined is not None)


def _take(part: _Part, match: re.Match[str], kind: str | None, everything: bool) -> None:
    """Add one token to a group."""
    word = match.group().lower()
    if kind == "joined":
        wall = {"antero": "anterior", "infero": "inferior", "postero": "inferolateral", "latero": "lateral", "septo": "septal"}.get(
            (match["jw1"] or "").lower()
        ) or _wall(match["jw2"])
        part.levels, part.walls = ["basal" if (match["jl1"] or match["jl2"]).lower().startswith("bas") else "apical"], [wall]
    elif kind == "span":
        part.levels += ["basal", "mid", "apical"]
    elif kind == "every":
        part.every = True
    elif kind == "level":
        level = "basal" if word.startswith(("bas", "prox")) else "mid" if word.startswith("mid") else "apical"
        part.levels.append(level)
        if everything:
            part.walls += ["anterior", "septal", "inferior", "lateral"]
    elif kind == "apex":
        part.apex = True
    elif kind == "wall":
        part.walls.append(_wall(word))


def _wall(word: str) -> str:
    """The canonical name of a wall."""
    word = re.sub(r"[- ]", "", word.lower())
    word = re.sub(r"sept(?:al|um)$", "septal", word)
    return {
        "posterior": "inferolateral",
        "posterolateral": "inferolateral",
        "anteriorseptal": "anteroseptal",
        "inferiorseptal": "inferoseptal",
    }.get(word, word)


def _segments(level: str, wall: str) -> tuple[int, ...]:
    """Segment numbers of one wall at one level."""
    if level == "apical":
        return (_APICAL[wall],)
    shift = 1 if level == "basal" else 7
    walls = {"septal": ("anteroseptal", "inferoseptal"), "lateral": ("inferolateral", "anterolateral")}.get(wall, (wall,))
    return tuple(_WALLS[name] + shift for name in walls)
