"""Whether a mention is present, absent, possible, historical, a relative's, or hypothetical.

After ConText (Harkema et al., J Biomed Inform 2009;42:839): trigger words before or after a mention open a scope inside the clause,
closed by words of its own. The triggers, scopes and their order of precedence are this project's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from twin.records.text.lexicon import Mention

_I = re.IGNORECASE
EVENTS = frozenset(
    (
        "vt",
        "nsvt",
        "vf",
        "syncope",
        "cardiac_arrest",
        "scd",
        "electrical_storm",
        "mi",
        "ablation",
        "lv_thrombus",
        "pericardial_effusion",
        "myocarditis",
        "af",
    )
)
"""Concepts that can be over: "history of" makes them historical, while a history of diabetes is present diabetes."""
TREATMENTS = frozenset(("icd", "ablation"))

_AFFIRMS = (
    r"(?:mild\w*|moderate\w*|severe\w*|trivial|trace|small|large|known|chronic|there|LVEF|EF|NYHA|an?|the"
    r"|his|her|he|she|stable|recurrent|extensive|dense|ongoing|current|new)"
)
_RELATIVE = (
    r"(?:(?:grand|step|half-)?(?:father|mother|brother|sister|son|daughter)s?|uncles?|aunts?|cousins?|siblings?"
    r"|parents?|nephews?|nieces?|relatives?|(?:first|second)[- ]degree relatives?|twin|maternal \w+|paternal \w+)"
)


@dataclass(frozen=True)
class _Scope:
    """A trigger and what ends its scope."""

    trigger: re.Pattern[str]
    ends: re.Pattern[str]


def _scope(trigger: str, ends: str) -> _Scope:
    return _Scope(re.compile(trigger, _I), re.compile(ends, _I))


_VERBS = (
    r"\b(?:is|are|was|were|remains?|show(?:s|ed)?|reveal\w*|demonstrat\w*|has|presents?|presented|underwent|treated"
    r"|develop\w*|suffer\w*)\b"
)
_ABSENT_PRE = _scope(
    r"\b(?:no(?! (?:change|increase|decrease|longer|doubt|progress\w*)\b)|not? (?:have|has|had|show|shown"
    r"|demonstrate|meet criteria for|suggest|identified as)|without|den(?:y|ies|ied|ying)|"
    r"negative for|free (?:of|from)|absence of|never (?:had|has|experienced|developed)?|neither|nor|ruled out (?:for"
    r"|an? )?|excluded?s? (?=an? )|lack of|none of|nil|declin\w+|refus\w+|"
    r"rather than|as opposed to|nothing (?:to suggest|suggestive of|suggesting)|(?<=, )not (?:[\w-]+ ){0,2}(?=$)"
    r"|(?<!or )not(?: an?)?(?: known)?(?= ?$)|"
    r"did not (?:have|show|reveal|demonstrate|identify)|does not (?:have|show|meet criteria for)|has not (?:had"
    r"|developed)|no (?:evidence|history|signs?|features?|suggestion|documentation|recurrence|further|known) (?:of"
    r"|for)?)(?!\w)",
    rf"{_VERBS}|\b(?:but|with|who|which|secondary to|due to|because|after|following|since|now|currently)\b|:|\band (?={_AFFIRMS}\b)"
    rf"|,\s*(?={_AFFIRMS}\b)| [-–—] ",
)
_ABSENT_POST = re.compile(
    r"(?<!cannot be )(?<!could not be )(?<!not been )(?<!not )(?<!completely )(?<!entirely )\b(?:(?:is|are"
    r"|was|were|has been|have been|had been)\s+)?(?:now\s+|also\s+|considered\s+|thought\s+|felt\s+|deemed\s+"
    r"|very\s+|reliably\s+|formally\s+)*"
    r"(?:absent|not (?:seen|identified|detected|present|demonstrated|observed|found|evident|inducible|induced"
    r"|noted|confirmed|documented|visible|visuali[sz]ed|shown|suspected|likely|in place|in situ|fitted|implanted)"
    r"|no longer inducible|(?<!be )excluded|(?<!be )ruled out"
    r"|"
    r"(?:highly |very |less )?unlikely|less likely|negative|denied|non-?inducible)\b"
    r"|\s*burden(?: of| is| was)?\s*[:=]?\s*(?:0(?!\.\d)|nil|none|zero)\b|\s*[:=]\s*(?:no\b|none\b|nil\b|negative\b"
    r"|absent\b|denied\b|not seen\b)|\s*\(\s*(?:-|–|no|none|negative)\s*\)|-free\b",
    _I,
)
_POSSIBLE_PRE = _scope(
    r"\b(?:possibl[ey]|probabl[ey]|suspect(?:ed|s|ing)?|suspicio(?:n|us) (?:of|for)|(?:can(?:not|'t| not)"
    r"|could not) (?:be )?(?:entirely |fully |completely |reliably )?(?:exclude|rule out)|not (?:exclude"
    r"|rule out)|"
    r"(?:could|may|might) (?:also )?(?:be|represent|reflect|indicate|suggest|have)(?: due to| secondary to"
    r"| caused by| related to)?|concern(?:s|ing|ed)? (?:for|about|of)|query|questionable|equivocal|uncertain"
    r"|unclear (?:whether|if)|whether"
    r"|rais(?:es|ed|ing) (?:the )?(?:possibility|question|suspicion|concern) (?:of|for)"
    r"|possibility of|differential(?: diagnos[ie]s)?(?: includes?"
    r"| is| of| between)?\s*:?|to (?:exclude|rule out)|rule out(?! for)|r/o|"
    r"(?:evaluat\w+|assess|work-?up) for|favou?r(?:s|ed|ing)?|suggest(?:s|ive|ed|ing)(?: of)?|presum(?:ed|ably)|(?<!un)(?<!less )likely"
    r"|(?<!not )consistent with (?:possible|either)|versus|vs)(?!\w)|(?<!\w)\?\s?",
    r"\b(?:in a (?:patient|man|woman)|given|because|on the basis|now|has|underwent)\b|;|,\s*(?=(?:with|known"
    r"|and has|LVEF|EF|NYHA|has|he|she)\b)",
)
_POSSIBLE_POST = re.compile(
    r"\b(?:(?:can(?:not|'t| not)|could not|has not|have not) (?:be(?:en)? )?(?:entirely |fully |completely "
    r"|reliably |definitely )?(?:excluded?|ruled out)|not (?:been )?(?:excluded|ruled out)|(?:is|was|are"
    r"|were|be|been|felt|thought|considered|judged) (?:to be )?(?:strongly |also |more |most )*"
    r"(?:suspected|possible|probable|likely|questionable|equivocal|uncertain|queried)|is (?:in|on) the differential"
    r"|remains? (?:a possibility|possible|in the differential|uncertain)|in question|versus|vs)(?!\w)|\b(?:likely"
    r"|probable|possible|suspected|questionable)\s*$|\s*\(\s*(?:\?|probable|possible|likely|suspected|presumed|query)\s*\)|\s*\?(?=\s|$)",
    _I,
)
_HYPOTHETICAL_PRE = _scope(
    r"\b(?:if|in case of|in the event of|unless|return (?:if|for|with)|(?:at )?(?:an? )?(?:high |increased "
    r"|low |elevated |the )?risk (?:of|for|factors? for)|to prevent|"
    r"prevention of|prophyla\w+ (?:of|against|for)|(?:monitor|watch|screen|surveillance|look)(?:ing|ed)? for|until|were to)(?!\w)",
    r",|;|\bthen\b",
)
_SHOULD = re.compile(r"\bshould\s+(?:\w+\s+){0,2}$", _I)
_OCCUR = re.compile(r"\s+(?:\w+ ){0,3}(?:occur|recur|develop|happen|persist|arise|worsen)", _I)
_PLAN = re.compile(
    r"\b(?:would be|plan(?:s|ned|ning)?|schedul\w+|recommend\w*|advis\w+|consider(?:ed|ing|ation)?|candidate for"
    r"|candidacy|referr(?:ed|al) (?:\w+ )?for|listed for|await\w*|indicat(?:ed|ion for)|discuss\w*|offer\w*"
    r"|propos\w*|to undergo|to be (?:implanted|fitted|inserted|performed|arranged|done|booked)|wish(?:es|ed)|wants?"
    r"|keen (?:for|on)|deci\w+ (?:on|about|whether|regarding|for)|"
    r"will (?:undergo|have|be|need|require)|eligib\w+|evaluation for|work-?up for|booked for|upgrade to"
    r"|may (?:need|require|be)|might (?:need|be)|should (?:be|undergo|have|receive)|need for|potential)\b",
    _I,
)
_CONDITION = re.compile(r"\s+(?:if|in case|only if|once|should|unless|when|regardless|either way)\b", _I)
_BOX = re.compile(r"\s*(?:\[\s*\]|[☐])\s*")
_ANSWER_NO = re.compile(r"\s*\?\s*(?:A(?:nswer)?\s*[:.]\s*)?(?:no|none|nil|never|nope|not|den(?:y|ies|ied))\b", _I)
_IMPLANTED = re.compile(
    r"\b(?:in situ|in place|(?<!be )implanted|interrogat\w*|shocks?|(?<!before )(?<!at )(?<!on )(?<!to )discharges?"
    r"|carrier|recipient|bearer"
    r"|paced|since|check|follow-?up|generator|lead)\b",
    _I,
)
_ICD_EVENT = re.compile(
    r"\W{0,3}(?:appropriate |inappropriate )?(?:therap\w+|shocks?|discharges?|interventions?|treatments?"
    r"|complications?|firings?|malfunction|infection)",
    _I,
)
_HISTORY_OF = _scope(
    r"(?<!family )(?<!no )\b(?:history of|h/o|hx of|past (?:medical )?history(?: of)?|PMHx?|survived|survivor of"
    r"|status post|s/p|previously (?:had|suffered|treated for|documented|noted|known|diagnosed with))(?!\w)",
    r"\b(?:now|currently|today|presents?|presented|presenting|admitted|referred|is|are|shows?|new|recurrent|ongoing)\b|;",
)
_PREVIOUS = _scope(
    r"(?<!no )\b(?:previous(?:ly)?|prior(?! to)|(?<!year-)(?<!years )(?<!year )(?<!-)old|remote|former|earlier|past"
    r"|healed|post)(?![-\w])",
    r",|;|\b(?:now|currently|today|with|is|are|presents?|presented|new|recurrent)\b",
)
_UNDERWENT = _scope(r"\b(?:underwent|had undergone|has undergone)\b", r"[,;]|\b(?:today|now)\b")
_SINCE = re.compile(
    r"\bsince\s+(?:(?:his|her|the|an?|that|this|last|first|second|third|latest|previous|index|VT|VF|repeat|redo)\s+){0,3}$", _I
)
_AFTER = re.compile(
    r"\b(?:after|following)\s+(?:(?:his|her|the|an?|last|first|second|third|latest|index|VT|VF|repeat"
    r"|redo)\s+){1,3}$",
    _I,
)
_DATE = re.compile(
    r"\b(?:in|on|of|since|during)?\s*(?:early |late |mid-?)?(?:(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct"
    r"|nov|dec)\w*\.?\s+)?(?:19|20)\d\d\b|"
    r"\b(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|several|many|some|a few) (?:years?|months?"
    r"|weeks?|days?) (?:ago|earlier|previously|before)|\blast (?:year|month|week|summer|winter|spring|autumn)\b"
    r"|"
    r"\bat (?:the )?age (?:of )?\d+|\b(?:years|months|weeks) ago\b|\bin (?:his|her) (?:teens|youth|childhood"
    r"|twenties|thirties|forties|fifties)\b",
    _I,
)
_OVER = re.compile(
    r"\b(?:(?:has|have|had|now|since|completely|fully|subsequently)\s+)*(?:resolved|disappeared|regressed"
    r"|removed|explanted|extracted|healed|cleared|recovered|abated|no longer (?:seen|present|visible|evident"
    r"|demonstrated))\b",
    _I,
)
_NO_LONGER = _scope(r"\bno longer\b|\bresolved\b|\bresolution of\b", r"[,;]|\bnow\b")
_FAMILY_PRE = _scope(
    rf"\bfamily history(?: of| is| for|:)?|\bFHx?\b:?|\b(?:{_RELATIVE})\b",
    r"\b(?:the patient|patient (?:has|is|denies)|he (?:has|is|had|himself)|she (?:has|is|had|herself)|personally)\b"
    r"|;",
)
_FAMILY_POST = re.compile(
    rf"\W{{0,2}}\s*(?:at \w+ )?(?:\(|in|of|affecting)\s*(?:his|her|a|an|the|their|one|two|both|the patient's)?\s*(?:\w+ )?(?:{_RELATIVE}"
    rf"|family)\b",
    _I,
)
_FAMILY_NONE = re.compile(
    r"\bfamily history (?:is |was )?(?:negative|unremarkable|non-?contributory|clear)|\bno (?:known |relevant )?family history"
    r"|\bden\w+ (?:any )?(?:a )?family history",
    _I,
)


def status(text: str, mention: Mention, clause: tuple[int, int], kind: str = "") -> str:
    """Status of one mention: present, absent, possible, historical, family or hypothetical.

    clause: (start, end) of the clause that holds the mention; kind: sort of report ("ep": the procedure of the report is not history).
    """
    before, after = text[clause[0] : mention.start], text[mention.end : clause[1]]
    concept = mention.concept
    if _FAMILY_NONE.search(before) or _BOX.match(before) or _ANSWER_NO.match(text[clause[1] :]):
        return "absent"
    if _open(_FAMILY_PRE, before) or _FAMILY_POST.match(after):
        return "absent" if _open(_ABSENT_PRE, before, after) else "family"
    device_event = concept == "icd" and _ICD_EVENT.match(after) is not None
    if not device_event:
        said = _doubt(before, after, concept)
        if said:
            return said
    if _over(after) or _open(_NO_LONGER, before):
        return "historical"
    if concept in EVENTS and _past(text, mention, clause, before, after, kind):
        return "historical"
    return "present"


def _doubt(before: str, after: str, concept: str) -> str | None:
    """Hypothetical, possible or absent; None if the mention is stated as a fact."""
    if _open(_HYPOTHETICAL_PRE, before) or (_SHOULD.search(before) and _OCCUR.match(after)):
        return "hypothetical"
    if _near(_POSSIBLE_POST, after):
        return "possible"
    if _open(_ABSENT_PRE, before, after) or _near(_ABSENT_POST, after):
        return "absent"
    if concept in TREATMENTS and _CONDITION.match(after):
        return "hypothetical"
    if (
        concept in TREATMENTS
        and not _IMPLANTED.search(before[-32:] + "#" + after[:40])
        and (_open_plan(before) or _near(_PLAN, after, 60, verbs=True))
    ):
        return "hypothetical"
    if concept not in TREATMENTS and _open(_POSSIBLE_PRE, before):
        return "possible"
    return None


def _past(text: str, mention: Mention, clause: tuple[int, int], before: str, after: str, kind: str) -> bool:
    """True if an event is said to be over: a history, an earlier date, a scar of it."""
    own = text[mention.start : mention.end].lower()
    if own.startswith("post") or (own.startswith("aborted") and _DATE.search(after)):
        return True
    lasting = mention.concept == "af" and re.search(r"\b(?:paroxysmal|persistent|permanent|chronic)\s*$", before, _I)
    if (_open(_HISTORY_OF, before) and not lasting) or _open(_PREVIOUS, before):
        return True
    if _SINCE.search(before):
        return True
    if mention.concept == "ablation" and kind != "ep" and (_open(_UNDERWENT, before) or _AFTER.search(before)):
        return True
    # a date right after ("in 2011", "(2018)") or before ("2011:", "In 2011 he had")
    near = re.split(r"[;]|\b(?:now|currently|today)\b", after, maxsplit=1)[0][:60]
    date = _DATE.search(near)
    if date and not re.search(r"\bsince\b", near[: date.end()]) and "," not in near[: date.start()]:
        return True
    # a date in brackets behind a word is that word's
    open_date = re.search(rf"(?:{_DATE.pattern})[^.,;]{{0,60}}$", re.sub(r"(?<=\w )\([^()]*\)", "", before), _I)
    return open_date is not None and not re.search(r"\b(?:now|currently|today|since)\b", before, _I)


def _open(scope: _Scope, before: str, after: str | None = None) -> bool:
    """True if a trigger before the mention is still in force at its end; with `after`, a list ends at an item that says more."""
    for match in scope.trigger.finditer(before):
        rest = before[match.end() :]
        if scope.ends.search(rest):
            continue
        if (
            after is not None
            and "," in rest
            and not re.search(r"\b(?:or|nor|and)\b", rest + after)
            and not re.match(r"\s*(?:[,.;)]|$)", after)
        ):
            continue
        return True
    return False


def _over(after: str) -> bool:
    """True if what follows says that it is over; what stands between commas does not matter."""
    match = _OVER.search(after[:90])
    return match is not None and not re.search(r"[;:]|\b(?:and|but|with)\b", after[: match.start()])


def _open_plan(before: str) -> bool:
    """True if a plan or a recommendation before the mention reaches it."""
    plans = list(_PLAN.finditer(before))
    if not plans:
        return False
    # "considered for an ICD", "consider her for an ICD" and "Plan: ICD" are plans for it, "discussed surgery for" is not
    rest = re.sub(r"^\s*(?::|(?:(?:him|her|them|this \w+) )?for\b)", "", before[plans[-1].end() :])
    return not re.search(r"[,;:]|\b(?:because|for|after|due to)\b", rest)


def _near(pattern: re.Pattern[str], after: str, reach: int = 75, verbs: bool = False) -> bool:
    """True if a trigger follows the mention with only a list or the rest of its noun phrase between (`verbs`: or a verb)."""
    match = pattern.search(after[: reach + 40])
    if match is None or match.start() > reach:
        return False
    between = after[: match.start()]
    if re.search(r"[;:]|\b(?:with|but|present|noted|shows?|has|for|who|which|while)\b", between, _I) or (
        not verbs and re.search(_VERBS, between, _I)
    ):
        return False
    return "," not in between or re.search(r"\b(?:and|or|nor)\b|^,[^,]*,\s*$", between) is not None
